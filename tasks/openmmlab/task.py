"""A task of the core on top of an ordinary MMDetection or MMSegmentation configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.task import ConfigError, Evaluation, Probe, Run, Task
from tasks.config import load_config


class OpenMMLabTask(Task):
    """Trains, scores and probes with MMEngine's Runner, imported when first needed."""

    def resolve(
        self, config: Path, backbone: str, arguments: Mapping[str, Any], overrides: Sequence[str]
    ) -> dict[str, Any]:
        resolved = load_config(config, overrides)
        model = resolved.get("model")
        described = model.get("backbone") if isinstance(model, dict) else None
        kind = described.get("type") if isinstance(described, dict) else described
        if not isinstance(described, dict) or kind != "SpikingBackbone":
            raise ConfigError(
                f"{config}: model.backbone.type is {kind!r}; "
                "expected 'SpikingBackbone', which takes any registered backbone"
            )
        described["name"] = backbone
        described["arguments"] = {**(described.get("arguments") or {}), **arguments}
        return resolved

    def train(self, run: Run) -> Path:
        from tasks.openmmlab import loop

        return loop.train(run)

    def evaluate(self, run: Run, checkpoint: Path) -> Evaluation:
        from tasks.openmmlab import loop

        metrics, dataset = loop.test(run, checkpoint)
        return Evaluation(dict(metrics), dataset)

    def probe(self, run: Run, checkpoint: Path) -> Probe:
        from tasks.openmmlab import loop

        return loop.probe(run, checkpoint)

    def sketch(self, config: Mapping[str, Any]) -> Probe:
        from tasks.openmmlab.sketch import sketch

        return sketch(config)

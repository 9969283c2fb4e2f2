"""The classification task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spikebench.task import ConfigError, Evaluation, MetricSpec, Probe, Run
from spikebench_tasks.base import BaseTask
from spikebench_tasks.config import load_config


class ClassificationTask(BaseTask):
    """Image classification with Lightning, imported when first needed."""

    title = "Accuracy"
    packages = ("lightning", "torchmetrics")
    modules = ("spikebench_tasks.classification.loop",)
    metrics = {
        "top1": MetricSpec("top-1", proportion=True),
        "top5": MetricSpec("top-5", proportion=True),
        "ece": MetricSpec("calibration error", higher_is_better=False),
    }

    def resolve(
        self,
        config: Path,
        backbone: str | None,
        arguments: Mapping[str, Any],
        overrides: Sequence[str],
    ) -> dict[str, Any]:
        resolved = load_config(config, overrides)
        for part in ("model", "data", "trainer"):
            if not isinstance(resolved.get(part), dict):
                raise ConfigError(f"{config}: {part!r} is missing; a classification needs it")
        model = resolved["model"]
        if backbone is not None:
            model["backbone"] = backbone
        model["arguments"] = {**(model.get("arguments") or {}), **arguments}
        return resolved

    def for_scoring(self, config: Mapping[str, Any]) -> dict[str, Any]:
        model = dict(config["model"])
        if "teacher" in model:
            model["teacher"] = None
        return {**config, "model": model}

    def backbone_of(self, config: Mapping[str, Any]) -> str:
        described = config["model"].get("backbone")
        if not isinstance(described, str):
            raise ConfigError(f"model.backbone is {described!r}; name one with --backbone")
        return described

    def with_image_size(self, config: Mapping[str, Any], size: int) -> dict[str, Any]:
        if "image_size" not in config["data"]:
            raise ConfigError("the configuration has no data.image_size to change")
        return {**config, "data": {**config["data"], "image_size": size}}

    def train(self, run: Run) -> Path:
        from spikebench_tasks.classification import loop

        return loop.train(run)

    def evaluate(self, run: Run, checkpoint: Path) -> Evaluation:
        from spikebench_tasks.classification import loop

        return loop.evaluate(run, checkpoint)

    def probe(self, run: Run, checkpoint: Path) -> Probe:
        from spikebench_tasks.classification import loop

        return loop.probe(run, checkpoint)

    def sketch(self, config: Mapping[str, Any]) -> Probe:
        from spikebench_tasks.classification import loop

        return loop.sketch(config)

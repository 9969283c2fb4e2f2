from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from spikebench.registry import TASKS
from spikebench.results import BackboneInfo, DatasetInfo
from spikebench.suites.overrides import apply_override
from spikebench.task import ConfigError, ConfigPath, Evaluation, MetricSpec, Probe, Run, Task

collect_ignore = ["distributed_worker.py"]  # a script that reads what is beside it


class FakeTask(Task):
    """A task that takes no time; its configuration says what goes wrong."""

    metrics = {
        "score": MetricSpec(),
        "latency": MetricSpec(unit="ms", higher_is_better=False),
    }
    not_protocol = frozenset({"data_root", "devices"})
    calls: list[tuple[str, str, int]] = []
    raises: dict[str, BaseException] = {}
    evaluation: dict[str, float] = {"score": 2 / 3, "latency": 0.1, "loss": 1.0}

    def resolve(
        self, config: Path, backbone: str, arguments: Mapping[str, Any], overrides: Sequence[str]
    ) -> dict[str, Any]:
        resolved = json.loads(config.read_text())
        for override in overrides:
            apply_override(resolved, override, config.name)
        return {**resolved, "backbone": backbone, "arguments": dict(arguments)}

    def initial_weights(self, config: Mapping[str, Any]) -> dict[ConfigPath, str]:
        places: list[ConfigPath] = [
            *([("start",)] if "start" in config else []),
            *(("parts", index, "start") for index in range(len(config.get("parts", ())))),
        ]
        return {place: _at(config, place) for place in places}

    def with_initial_weights(self, config: Mapping[str, Any], weights: Path) -> dict[str, Any]:
        return {**config, "start": str(weights)}

    def backbone_of(self, config: Mapping[str, Any]) -> str:
        if config.get("backbone") is None:
            raise ConfigError("backbone is None; name one with --backbone")
        return config["backbone"]

    def checkpoints(self, folder: Path) -> list[Path]:
        return sorted(folder.glob("epoch_*.pth"))

    def _called(self, phase: str, run: Run) -> None:
        type(self).calls.append((phase, run.backbone, run.seed))
        error = self.raises.get(f"{phase}:{run.seed}") or self.raises.get(phase)
        if error is not None:
            raise error

    def train(self, run: Run) -> Path:
        self._called("train", run)
        checkpoint = run.folder / "epoch_1.pth"
        checkpoint.write_bytes(b"weights %d" % run.seed)
        return checkpoint

    def evaluate(self, run: Run, checkpoint: Path) -> Evaluation:
        self._called("evaluate", run)
        return Evaluation(
            dict(self.evaluation),
            DatasetInfo(name="toy", split="test", train_samples=8, test_samples=run.limit or 6),
        )

    def probe(self, run: Run, checkpoint: Path) -> Probe:
        self._called("probe", run)
        backbone = BackboneInfo(name=run.backbone, arguments={}, time_steps=2, parameters=5)
        batches = (torch.ones(4, 3) for _ in range(100))
        return Probe(nn.Linear(3, 2), batches, lambda model, batch: model(batch), backbone)


def _at(config: Any, place: ConfigPath) -> Any:
    for step in place:
        config = config[step]
    return config


@pytest.fixture
def fake_task(monkeypatch: pytest.MonkeyPatch) -> type[FakeTask]:
    """A fresh fake task, registered as `fake`, that notes what it was called for."""
    task = type("fake", (FakeTask,), {"calls": [], "raises": {}})
    monkeypatch.setitem(TASKS._entries, "fake", task)
    return task


@pytest.fixture
def write_suite(tmp_path: Path) -> Callable[..., Path]:
    """Write a suite of the fake task, or of what the arguments say."""

    def write(config: dict[str, Any] | None = None, **keys: Any) -> Path:
        (tmp_path / "toy.json").write_text(json.dumps(config or {"lr": 0.1, "data_root": "a"}))
        suite = {
            "name": "demo",
            "backbones": ["meta_spikeformer_nano"],
            "tasks": [{"task": "fake", "config": "toy.json"}],
            **keys,
        }
        path = tmp_path / "suite.yaml"
        path.write_text(yaml.safe_dump(suite))
        return path

    return write

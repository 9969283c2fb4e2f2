"""How much of its time the training loop spends beside the model's steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image

from spikebench.task import Run
from spikebench_tasks.classification import loop
from spikebench_tasks.classification.datasets import build_data_module
from spikebench_tasks.classification.module import ClassificationModule
from spikebench_tasks.classification.task import ClassificationTask
from tests.tasks.small import CONFIGS, NANO

IMAGES, STEPS = 12_800, 5

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many images as keep the loop busy for a while, as JPEG files of 32x32."""
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path))
    rng = np.random.default_rng(0)
    for split, count in (("train", IMAGES), ("test", 10)):
        for index in range(count):
            path = tmp_path / "cifar10" / split / f"class{index % 10}" / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            coarse.resize((32, 32), Image.Resampling.BILINEAR).save(path, quality=75)


class AlternatingSteps(Callback):
    """Steps of the loop and bare steps of a model of its own, in turns: a machine's speed changes.

    Attributes:
        loop: seconds of each turn of the loop.
        bare: seconds of each turn of bare steps.
    """

    def __init__(self, module: ClassificationModule) -> None:
        module.log = lambda *_, **__: None  # type: ignore[method-assign]
        self.module = module
        self.optimizer = torch.optim.AdamW(module.parameters())
        self.loop: list[float] = []
        self.bare: list[float] = []

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        if index % STEPS:
            return
        if index > STEPS:  # the first turn warms up
            self.loop.append(time.perf_counter() - self.start)
        seconds = self.steps(batch)
        if index:
            self.bare.append(seconds)
        self.start = time.perf_counter()

    def steps(self, batch: tuple) -> float:
        start = time.perf_counter()
        for _ in range(STEPS):
            self.optimizer.zero_grad()
            self.module.training_step(batch, 0).backward()
            torch.nn.utils.clip_grad_norm_(self.module.parameters(), 5.0)
            self.optimizer.step()
        return time.perf_counter() - start


@pytest.mark.usefixtures("as_runs_compute")
def test_the_loop_keeps_the_model_busy(
    cifar10, make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
):
    config = ClassificationTask().resolve(
        CONFIGS / "classification" / "cifar10_nano.py", NANO, {}, ["trainer.max_epochs=1"]
    )
    batch_size = config["data"]["batch_size"]
    run = make_run("classification", config, limit=None)
    data = build_data_module(limit=None, **config["data"])
    data.setup()
    start, count = time.perf_counter(), 0
    for images, _labels in data.train_dataloader():
        if count == 0:
            start = time.perf_counter()  # workers have started
        else:
            last = time.perf_counter()
        count += len(images)
    loading = (count - batch_size) / (last - start)

    turns = AlternatingSteps(ClassificationModule(num_classes=10, **config["model"]))
    make = loop._trainer
    monkeypatch.setattr(loop, "_trainer", lambda run, callbacks: make(run, [turns, *callbacks]))
    loop.train(run)
    step, looped = (
        batch_size * STEPS * len(each) / sum(each) for each in (turns.bare[:-1], turns.loop)
    )
    print(
        f"\nimages per second: step {step:.0f}, loop {looped:.0f} ({looped / step:.2f} of it), "
        f"loader alone {loading:.0f}"
    )
    assert looped >= 0.9 * step
    assert loading >= 3 * step

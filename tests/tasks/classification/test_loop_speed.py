"""How much of its time the training loop spends beside the model's steps."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image

from benchmark.task import Run
from tasks.classification import loop
from tasks.classification.data_modules import build_data_module
from tasks.classification.module import ClassificationModule
from tasks.classification.task import ClassificationTask
from tests.tasks.small import CONFIGS, NANO

IMAGES, WARMUP = 6400, 10

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


class Clock(Callback):
    """Images per second between the first steps and the last."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        self.times.append(time.perf_counter())

    def rate(self, batch: int) -> float:
        whole = self.times[WARMUP:-1]
        return batch * (len(whole) - 1) / (whole[-1] - whole[0])


def bare_rate(module: ClassificationModule, batch: tuple, steps: int = 25) -> float:
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    optimizer = torch.optim.AdamW(module.parameters())
    for step in range(-WARMUP, steps):
        if step == 0:
            start = time.perf_counter()
        optimizer.zero_grad()
        module.training_step(batch, 0).backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 5.0)
        optimizer.step()
    return len(batch[0]) * steps / (time.perf_counter() - start)


def test_the_loop_keeps_the_model_busy(
    cifar10, make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
):
    threads = torch.get_num_threads()
    torch.set_num_threads(torch.multiprocessing.cpu_count())
    config = ClassificationTask().resolve(
        CONFIGS / "classification" / "cifar10_nano.py", NANO, {}, ["trainer.max_epochs=1"]
    )
    batch_size = config["data"]["batch_size"]
    run = make_run("classification", config, limit=None)
    data = build_data_module(limit=None, **config["data"])
    data.setup()
    loader = data.train_dataloader()
    start, count = time.perf_counter(), 0
    for images, labels in loader:
        if count == 0:
            start = time.perf_counter()  # workers have started
        else:
            last = time.perf_counter()
        count += len(images)
        batch = images, labels
    loading = (count - batch_size) / (last - start)

    module = ClassificationModule(num_classes=10, **config["model"])
    batch = next(iter(loader))
    bare = [bare_rate(module, batch)]
    clock = Clock()
    make = loop._trainer
    monkeypatch.setattr(loop, "_trainer", lambda run, callbacks: make(run, [clock, *callbacks]))
    loop.train(run)
    bare.append(bare_rate(module, batch))
    torch.set_num_threads(threads)
    step = statistics.mean(bare)
    print(
        f"\nimages per second: step {step:.0f} ({bare[0]:.0f}, {bare[1]:.0f}), "
        f"loop {clock.rate(batch_size):.0f}, loader alone {loading:.0f}"
    )
    assert clock.rate(batch_size) >= 0.9 * step
    assert loading >= 3 * step

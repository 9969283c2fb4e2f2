"""Every configuration of classification: a training step and a test step on tiny data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from benchmark import build_classifier
from benchmark.task import Run
from tasks.classification import loop
from tasks.classification.task import ClassificationTask
from tests.tasks.datasets.events.files import atis, some_events
from tests.tasks.small import CONFIGS, NANO

PATHS = sorted((CONFIGS / "classification").glob("*.py"))
CLASSES = 10
FOLDERS = {
    "cifar10": ("train", "test"),
    "cifar100": ("train", "test"),
    "imagenet": ("train", "val"),
    "nmnist": ("Train", "Test"),
}

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images or recordings a class of every data set in class folders."""
    root = tmp_path_factory.mktemp("sets")
    rng = np.random.default_rng(0)
    for name, splits in FOLDERS.items():
        for folder in (root / name / split / str(n) for split in splits for n in range(CLASSES)):
            folder.mkdir(parents=True)
            for index in range(2):
                if name == "nmnist":
                    (folder / f"{index}.bin").write_bytes(atis(some_events(60, side=34)))
                else:
                    pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(folder / f"{index}.png")
    return root


def short(config: dict, folder: Path) -> list[str]:
    """Overrides for an epoch of a few small images without a download."""
    overrides = ["trainer.max_epochs=1", "trainer.precision=32-true", "data.num_workers=0"]
    overrides += ["data.batch_size=4", "data.image_size=32"]
    if config["data"]["name"] != "digits":
        overrides.append(f"+data.num_classes={CLASSES}")
    if "teacher" in config["model"]:
        teacher, start = folder / "teacher.pth", folder / "start.pth"
        torch.save(timm.create_model("resnet10t", num_classes=CLASSES).state_dict(), teacher)
        torch.save(build_classifier(NANO, CLASSES).state_dict(), start)
        overrides += [
            "model.teacher.timm=resnet10t",
            f'+model.teacher.init_cfg={{"checkpoint": "{teacher}"}}',
            f"load_from={start}",
        ]
    return overrides


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_training_step_and_a_test_step(
    path: Path, root: Path, make_run: Callable[..., Run], tmp_path: Path, monkeypatch
):
    monkeypatch.setenv("SPIKEBENCH_DATA", str(root))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    task = ClassificationTask()
    overrides = short(task.resolve(path, NANO, {}, []), tmp_path)
    run = make_run("classification", task.resolve(path, NANO, {}, overrides), limit=6)
    metrics, dataset, *_ = loop.evaluate(run, loop.train(run))
    assert dataset.test_samples == 6
    assert 0 <= metrics["top1"] <= metrics["top5"] <= 1

"""Every configuration of classification: a training step and a test step on tiny data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from spikebench import build_classifier
from spikebench.task import Run
from spikebench_tasks.classification import events, loop
from spikebench_tasks.classification.task import ClassificationTask
from spikebench_tasks.datasets.events import Events, read_events
from tests.tasks.datasets.events.sets import EVENT_SETS, make_events
from tests.tasks.small import CONFIGS, NANO

PATHS = sorted((CONFIGS / "classification").glob("*.py"))
CLASSES = 10
FOLDERS = {
    "cifar10": ("train", "test"),
    "cifar100": ("train", "test"),
    "imagenet": ("train", "val"),
}

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images or recordings a class of every data set."""
    root = tmp_path_factory.mktemp("sets")
    for name, splits in FOLDERS.items():
        for split in splits:
            for number in range(CLASSES):
                save_images(root / name / split / str(number), 32)
    for number in range(CLASSES):
        save_images(root / "tiny-imagenet-200" / "train" / str(number) / "images", 64)
    val = root / "tiny-imagenet-200" / "val"
    save_images(val / "images", 64)
    (val / "val_annotations.txt").write_text(
        "".join(f"{n % 2}.png\t{n}\t0\t0\n" for n in range(10))
    )
    for name in EVENT_SETS:
        make_events(root, name)
    return root


def save_images(folder: Path, side: int) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for index in range(2):
        pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")


def read_any(path: Path) -> Events:
    """The events of a file, and none of AEDAT 4, which tiny files are not of."""
    if path.suffix != ".aedat4":
        return read_events(path)
    none = np.zeros(0, np.int32)
    return Events(none.astype(np.int64), none, none, none.astype(bool))


def short(config: dict, folder: Path) -> list[str]:
    """Overrides for an epoch of a few small images without a download."""
    overrides = ["trainer.max_epochs=1", "trainer.precision=32-true", "data.num_workers=0"]
    overrides += ["data.batch_size=4", "data.image_size=32"]
    if config["data"]["name"] != "digits":
        overrides.append(f"+data.num_classes={CLASSES}")
    if "teacher" in config["model"]:
        teacher, start = folder / "teacher.pth", folder / "start.pth"
        torch.save(timm.create_model("resnet10t", num_classes=CLASSES).state_dict(), teacher)
        arguments = config["model"].get("arguments", {})
        torch.save(build_classifier(NANO, CLASSES, **arguments).state_dict(), start)
        described = f'{{"timm": "resnet10t", "init_cfg": {{"checkpoint": "{teacher}"}}}}'
        overrides += [f"model.teacher={described}", f"+load_from={start}"]
    return overrides


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_training_step_and_a_test_step(
    path: Path, root: Path, make_run: Callable[..., Run], tmp_path: Path, monkeypatch
):
    monkeypatch.setenv("SPIKEBENCH_DATA", str(root))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(events, "read_events", read_any)
    task = ClassificationTask()
    overrides = short(task.resolve(path, NANO, {}, []), tmp_path)
    run = make_run("classification", task.resolve(path, NANO, {}, overrides), limit=6)
    metrics, dataset, *_ = loop.evaluate(run, loop.train(run))
    assert dataset.test_samples == 6
    assert 0 <= metrics["top1"] <= metrics["top5"] <= 1

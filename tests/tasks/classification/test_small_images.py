"""CIFAR-10 and CIFAR-100: official files written small, and class folders."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from benchmark import build_classifier
from benchmark.task import MissingDataError, Run
from tasks.classification import loop
from tasks.classification.data_modules import build_data_module
from tasks.classification.small_images import CIFAR10DataModule, CIFAR100DataModule, CIFARDataModule
from tasks.classification.task import ClassificationTask
from tasks.datasets import DatasetError
from tests.tasks.small import CONFIGS, NANO

MODULES = {"cifar10": CIFAR10DataModule, "cifar100": CIFAR100DataModule}
CONFIG = CONFIGS / "classification" / "cifar10.py"
EACH = 20  # images of an official file

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(params=MODULES)
def official(request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[CIFARDataModule]:
    """The files under their names, and what they hold told as their MD5."""
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path))
    module = MODULES[request.param]
    kind: type[datasets.CIFAR10] = module.official
    folder = tmp_path / request.param / kind.base_folder
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)

    def write(name: str, content: dict) -> tuple[str, str]:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return name, hashlib.md5(data).hexdigest()

    labels = "fine_labels" if request.param == "cifar100" else "labels"
    classes = 100 if request.param == "cifar100" else 10
    for split in ("train_list", "test_list"):
        named = [
            write(
                name,
                {
                    "data": rng.integers(0, 256, (EACH, 3072), dtype=np.uint8),
                    labels: rng.integers(0, classes, EACH).tolist(),
                },
            )
            for name, _ in getattr(kind, split)
        ]
        monkeypatch.setattr(kind, split, named)
    names = [f"class {index}" for index in range(classes)]
    name, md5 = write(kind.meta["filename"], {kind.meta["key"]: names})
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5})
    return module


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path))
    for split, count in (("train", 4), ("test", 2)):
        for index in range(10):
            folder = tmp_path / "cifar10" / split / f"class{index}"
            folder.mkdir(parents=True)
            for image in range(count):
                Image.new("RGB", (32, 32), (25 * index, 0, 0)).save(folder / f"{image}.png")
    return tmp_path / "cifar10"


def test_official_files_are_read(official: type[CIFARDataModule]):
    data = build_data_module(official.name, limit=None, batch_size=5, num_workers=0)
    data.require(training=True)
    data.setup()
    assert data.train_samples == len(data.train) == EACH * len(official.official.train_list)
    images, labels = next(iter(data.train_dataloader()))
    assert images.shape == (5, 3, 32, 32)
    images, labels = next(iter(data.test_dataloader()))
    read = official.official(str(official.published.folder), train=False)
    assert labels.tolist() == read.targets[:5]
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in (official.mean, official.std))
    pixels = torch.from_numpy(read.data[0]).permute(2, 0, 1) / 255
    torch.testing.assert_close(images[0], (pixels - mean) / std, atol=1e-5, rtol=1e-5)


def test_class_folders_are_read(folders: Path):
    data = CIFAR10DataModule(batch_size=4, num_workers=0, image_size=48, limit=10)
    data.require(training=True)
    data.setup()
    assert (data.train_samples, len(data.test)) == (10, 10)
    images, _ = next(iter(data.train_dataloader()))
    assert images.shape == (4, 3, 48, 48)
    assert [label for _, label in data.test] == list(range(10))


def test_training_images_are_moved_and_flipped(folders: Path):
    image = np.zeros((32, 32, 3), np.uint8)
    image[:, :16] = 255
    transform = CIFAR10DataModule()._augmentation()
    torch.manual_seed(0)
    seen = torch.stack([transform(Image.fromarray(image)) for _ in range(60)])
    left = seen[:, :, 16, 6].mean(1) > seen[:, :, 16, 26].mean(1)
    assert 10 < int(left.sum()) < 50
    assert len({tuple(one.flatten().tolist()) for one in seen}) > 20


class TestBadData:
    def test_a_missing_one_says_where_it_comes_from(self, tmp_path: Path, monkeypatch):
        monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path))
        with pytest.raises(MissingDataError, match=r"CIFAR-10 is missing: .*cifar-10-python"):
            CIFAR10DataModule().require(training=True)

    def test_an_official_file_that_is_missing(self, official: type[CIFARDataModule]):
        name, _ = official.official.train_list[0]
        (official.published.folder / official.official.base_folder / name).unlink()
        build_data_module(official.name, limit=None).require(training=False)
        with pytest.raises(MissingDataError, match=f"{name} is not there"):
            build_data_module(official.name, limit=None).require(training=True)

    def test_an_official_file_that_is_cut_off(self, official: type[CIFARDataModule]):
        name, md5 = official.official.test_list[0]
        path = official.published.folder / official.official.base_folder / name
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(DatasetError, match=f"{path} is not the official .* MD5 is {md5}"):
            build_data_module(official.name, limit=None).require(training=False)

    def test_fewer_classes_than_expected(self, folders: Path):
        with pytest.raises(DatasetError, match="holds 10 class folders; expected 100"):
            CIFAR10DataModule(num_classes=100).require(training=False)

    def test_a_class_without_images(self, folders: Path):
        for path in (folders / "train" / "class3").iterdir():
            path.unlink()
        with pytest.raises(MissingDataError, match="train/class3 is empty"):
            CIFAR10DataModule().require(training=True)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_an_image_that_cannot_be_read_is_named_in_one_line(
    folders: Path, make_run: Callable[..., Run], workers: int, content: bytes | None
):
    path = folders / "test" / "class3" / "1.png"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    short = [f"data.num_workers={workers}", "data.batch_size=4"]
    config = ClassificationTask().resolve(CONFIG, NANO, {}, short)
    checkpoint = folders / "weights.pth"
    torch.save(build_classifier(NANO, 10).state_dict(), checkpoint)
    with pytest.raises(DatasetError) as error:
        loop.evaluate(make_run("classification", config, limit=None), checkpoint)
    said = str(error.value)
    assert said.startswith(f"{path} cannot be read: ")
    assert said.endswith("; get the file again, or leave it out")
    assert "\n" not in said


class TestTinyImageNet:
    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Two classes of three images, and tested ones of both in another order."""
        monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path))
        folder = tmp_path / "tiny-imagenet-200"
        for label, name in enumerate(("n01", "n02")):
            images = folder / "train" / name / "images"
            images.mkdir(parents=True)
            for index in range(3):
                Image.new("RGB", (64, 64), (255 * label, 0, 0)).save(images / f"{index}.JPEG")
            (images.parent / "boxes.txt").write_text("0.JPEG\t0\t0\t9\t9\n")
        (folder / "val" / "images").mkdir(parents=True)
        lines = []
        for index, label in enumerate((1, 0, 1)):
            path = folder / "val" / "images" / f"val_{index}.JPEG"
            Image.new("RGB", (64, 64), (255 * label, 0, 0)).save(path)
            lines.append(f"{path.name}\tn0{label + 1}\t0\t0\t62\t62\n")
        (folder / "val" / "val_annotations.txt").write_text("".join(lines))
        return folder

    def test_classes_of_tested_images_are_those_of_the_annotations(self, folder: Path):
        data = build_data_module("tiny_imagenet", None, num_classes=2, num_workers=0)
        data.require(training=True)
        data.setup()
        assert (data.train_samples, list(data.classes)) == (6, ["n01", "n02"])
        assert [label for _, label in data.test] == [1, 0, 1]
        images = [image for image, _ in data.test]
        assert images[0].shape == (3, 64, 64)
        assert images[0].equal(images[2])
        assert not images[0].equal(images[1])

    def test_annotations_of_other_classes_are_named(self, folder: Path):
        path = folder / "val" / "val_annotations.txt"
        path.write_text("val_0.JPEG\tn01\t0\t0\t1\t1\nval_1.JPEG\tn09\t0\t0\t1\t1\n")
        with pytest.raises(DatasetError, match=f"{path}, line 2: class 'n09'; expected one of"):
            build_data_module("tiny_imagenet", None, num_classes=2).require(training=False)

    def test_an_image_that_is_not_there(self, folder: Path):
        (folder / "val" / "images" / "val_1.JPEG").unlink()
        with pytest.raises(MissingDataError, match=r"val_1\.JPEG is not there"):
            build_data_module("tiny_imagenet", None, num_classes=2).require(training=False)

"""CIFAR-10 and CIFAR-100: official files written small, and class folders."""

from __future__ import annotations

import hashlib
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from torchvision import datasets
from torchvision.transforms import v2

from spikebench import build_classifier
from spikebench.task import MissingDataError, Run
from spikebench_tasks.classification import loop
from spikebench_tasks.classification.datasets import build_data_module
from spikebench_tasks.classification.datasets.cifar import (
    CIFAR10DataModule,
    CIFAR100DataModule,
    CIFARDataModule,
)
from spikebench_tasks.classification.task import ClassificationTask
from spikebench_tasks.datasets import DatasetError
from tests.tasks.small import CONFIGS, NANO

MODULES = {"cifar10": CIFAR10DataModule, "cifar100": CIFAR100DataModule}
NAMES = {module: name for name, module in MODULES.items()}
TINY_IMAGENET = CONFIGS / "classification" / "tiny_imagenet.py"
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
    data = build_data_module(NAMES[official], limit=None, batch_size=5, num_workers=0)
    data.require(training=True)
    data.setup()
    assert data.train_samples == len(data.train) == EACH * len(official.official.train_list)
    images, labels = next(iter(data.train_dataloader()))
    assert images.shape == (5, 3, 32, 32)
    images, labels = next(iter(data.test_dataloader()))
    read = official.official(str(official().folder), train=False)
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


def test_images_in_class_folders_are_read_once(folders: Path):
    data = CIFAR10DataModule(num_workers=1)
    data.setup()
    shutil.move(folders, folders.with_name("away"))
    (images, labels), *_ = data.test_dataloader()
    assert labels.tolist() == [index // 2 for index in range(20)]
    red = (torch.arange(20) // 2 * 25 / 255 - data.mean[0]) / data.std[0]
    torch.testing.assert_close(images[:, 0], red.view(-1, 1, 1).expand(20, 32, 32))
    assert [len(batch) for batch, _ in data.train_dataloader()] == [40]


def test_training_images_are_moved_and_flipped():
    """Each by its own: where its only bright pixel is, and on which side its dim one."""
    image = np.zeros((32, 32, 3), np.uint8)
    image[10, 20], image[10, 22] = 255, 100
    _, finish = CIFAR10DataModule(padding=4, augment={"hflip": 0.25})._augmentation()
    torch.manual_seed(0)
    images, labels = finish([(image, index) for index in range(4000)])
    assert labels.tolist() == list(range(4000))
    red = images[:, 0]
    brightest = red.flatten(1).argmax(1)
    rows, columns = brightest // 32, brightest % 32
    assert rows.unique().tolist() == list(range(6, 15))
    flipped = columns < 16
    assert columns[~flipped].unique().tolist() == list(range(16, 25))
    assert columns[flipped].unique().tolist() == list(range(7, 16))
    assert float(flipped.float().mean()) == pytest.approx(0.25, abs=0.03)
    dim = columns + torch.where(flipped, -2, 2)
    at_dim = red[torch.arange(4000), rows, dim]
    expected = (100 / 255 - CIFAR10DataModule.mean[0]) / CIFAR10DataModule.std[0]
    torch.testing.assert_close(at_dim, torch.full((4000,), expected))
    assert len(brightest.unique()) == 9 * 18


def test_training_images_are_what_torchvision_makes_of_them():
    """But for where they are moved, which is drawn otherwise."""
    augment = {"auto_augment": "rand-m7-n1-mstd0.5-inc1", "re_prob": 0.5, "hflip": 0.0}
    rng = np.random.default_rng(0)
    arrays = rng.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    data = CIFAR10DataModule(padding=0, augment=augment)
    each, finish = data._augmentation()
    fixed = {"is_training": True, "interpolation": "bicubic", "color_jitter": None}
    whole = create_transform(32, mean=data.mean, std=data.std, **fixed, **augment)
    before, after = (
        whole.transforms[1:2],
        whole.transforms[2:],
    )  # RandAugment; tensors, and what is done to them
    L.seed_everything(0)
    augmented = [step(Image.fromarray(array)) for array in arrays for step in before]
    expected = torch.stack([v2.Compose(after)(image) for image in augmented])
    L.seed_everything(0)
    images, _ = finish([(np.array(each(Image.fromarray(a))), 0) for a in arrays])
    assert images.equal(expected)
    assert images.is_contiguous()


class TestBadData:
    def test_a_missing_one_says_where_it_comes_from(self, tmp_path: Path, monkeypatch):
        monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path))
        with pytest.raises(MissingDataError, match="CIFAR-10 .*cifar-10-python"):
            CIFAR10DataModule().require(training=True)

    def test_an_official_file_that_is_missing(self, official: type[CIFARDataModule]):
        name, _ = official.official.train_list[0]
        (official().folder / official.official.base_folder / name).unlink()
        build_data_module(NAMES[official], limit=None).require(training=False)
        with pytest.raises(MissingDataError, match=f"{name} is not there"):
            build_data_module(NAMES[official], limit=None).require(training=True)

    def test_an_official_file_that_is_cut_off(self, official: type[CIFARDataModule]):
        name, md5 = official.official.test_list[0]
        path = official().folder / official.official.base_folder / name
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(DatasetError, match=f"{path} .*{md5}"):
            build_data_module(NAMES[official], limit=None).require(training=False)

    def test_fewer_classes_than_expected(self, folders: Path):
        with pytest.raises(DatasetError, match="10 .*100 "):
            CIFAR10DataModule(num_classes=100).require(training=False)

    def test_an_image_that_cannot_be_read_is_found_before_training(self, folders: Path):
        path = folders / "train" / "class3" / "1.png"
        path.write_bytes(b"no image")
        CIFAR10DataModule().setup("test")
        with pytest.raises(DatasetError, match=str(path)):
            CIFAR10DataModule().setup("fit")

    def test_an_image_of_another_size(self, folders: Path):
        path = folders / "test" / "class3" / "1.png"
        Image.new("RGB", (40, 32)).save(path)
        with pytest.raises(DatasetError, match=f"{path} .*40x32 .*32x32"):
            CIFAR10DataModule().setup("test")

    def test_splits_of_other_classes(self, folders: Path):
        (folders / "train" / "class3").rename(folders / "train" / "cat")
        with pytest.raises(DatasetError, match="train .*'cat' "):
            CIFAR10DataModule().require(training=True)

    def test_a_class_without_images(self, folders: Path):
        for path in (folders / "train" / "class3").iterdir():
            path.unlink()
        with pytest.raises(MissingDataError, match="train/class3 "):
            CIFAR10DataModule().require(training=True)


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
        ((images, _),) = data.test_dataloader()
        assert images.shape == (3, 3, 64, 64)
        assert images[0].equal(images[2])
        assert not images[0].equal(images[1])

    def test_annotations_of_other_classes_are_named(self, folder: Path):
        path = folder / "val" / "val_annotations.txt"
        path.write_text("val_0.JPEG\tn01\t0\t0\t1\t1\nval_1.JPEG\tn09\t0\t0\t1\t1\n")
        with pytest.raises(DatasetError, match=f"{path}, line 2: .*'n09'"):
            build_data_module("tiny_imagenet", None, num_classes=2).require(training=False)

    def test_an_image_that_is_not_there(self, folder: Path):
        (folder / "val" / "images" / "val_1.JPEG").unlink()
        with pytest.raises(MissingDataError, match=r"val_1\.JPEG "):
            build_data_module("tiny_imagenet", None, num_classes=2).require(training=False)

    @pytest.mark.parametrize("workers", [0, 1])
    @pytest.mark.parametrize("content", [b"", b"no image", None])
    def test_an_image_that_cannot_be_read_is_named_in_one_line(
        self,
        folder: Path,
        make_run: Callable[..., Run],
        workers: int,
        content: bytes | None,
    ):
        path = folder / "val" / "images" / "val_1.JPEG"
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if content is None else content)
        short = [f"data.num_workers={workers}", "data.batch_size=4"]
        config = ClassificationTask().resolve(TINY_IMAGENET, NANO, {}, short)
        config["data"]["num_classes"] = 2
        checkpoint = folder / "weights.pth"
        torch.save(build_classifier(NANO, 2).state_dict(), checkpoint)
        with pytest.raises(DatasetError) as error:
            loop.evaluate(make_run("classification", config, limit=None), checkpoint)
        said = str(error.value)
        assert said.startswith(f"{path} cannot be read: ")
        assert said.endswith("; get the file again, or leave it out")
        assert "\n" not in said

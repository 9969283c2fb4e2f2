"""Data sets of small images: CIFAR-10, CIFAR-100 and Tiny-ImageNet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, create_transform
from timm.data.transforms import MaybeToTensor
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision import datasets
from torchvision.datasets.utils import check_integrity
from torchvision.transforms import RandomHorizontalFlip, v2

from spikebench.task import MissingDataError
from spikebench_tasks.classification.data import DataModule, read_image, require_classes
from spikebench_tasks.datasets import DatasetError, Split
from spikebench_tasks.datasets.published import (
    CIFAR10,
    CIFAR100,
    TINY_IMAGENET,
    Published,
    evenly_spread,
)


class SmallImagesDataModule(DataModule):
    """Images too small to crop parts of random size from; a subclass says which.

    Training images are padded by `padding` and cropped at random, and flipped; all are normalised
    by a mean and deviation.

    Args:
        num_classes: how many classes; None as many as the data set has.
        image_size: pixels each side; None are those of the files, to others images are resized.
        batch_size: images a step.
        num_workers: loader processes.
        padding: pixels by which training images are padded before they are cropped.
        augment: what timm's `create_transform` does to training images besides: auto_augment,
            re_prob, color_jitter, ...
        limit: use only so many images of each split, spread evenly over them.

    Attributes:
        side: pixels each side of the files.
    """

    published: Published
    side: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    train: _Images
    test: _Images

    def __init__(
        self,
        num_classes: int | None = None,
        image_size: int | None = None,
        batch_size: int = 128,
        num_workers: int = 2,
        padding: int = 4,
        augment: Mapping[str, Any] | None = None,
        limit: int | None = None,
    ) -> None:
        super().__init__(num_classes, image_size or self.side, batch_size, num_workers, limit)
        self.padding = padding
        self.augment = {"color_jitter": None, **(augment or {})}

    def setup(self, stage: str | None = None) -> None:
        training = stage in (None, "fit")
        self.require(training)
        if training:
            self.train = self._limited("train")
            self.train.each, self._finish_train = self._augmentation()
        self.test = self._limited("test")
        self.test.each, self._finish_test = self._transform()
        self.classes = self.test.classes

    @property
    def train_samples(self) -> int | None:
        """Images to train on; None where there are none."""
        try:
            return len(self._limited("train"))
        except (FileNotFoundError, MissingDataError):
            return None

    def images(self, split: Split) -> _Images:
        """The images of a split."""
        raise NotImplementedError

    def _loader(self, dataset: Any, **options: Any) -> DataLoader:
        training = dataset is getattr(self, "train", None)
        finish = self._finish_train if training else self._finish_test
        return super()._loader(dataset, collate_fn=finish, **options)

    def _limited(self, split: Split) -> _Images:
        images = self.images(split)
        images.samples = [images.samples[at] for at in evenly_spread(len(images), self.limit)]
        return images

    def _transform(self) -> tuple[v2.Compose | None, _Finish]:
        """What is done to each tested image, and then to a batch of them."""
        transform = create_transform(
            self.image_size,
            crop_pct=1.0,
            interpolation="bicubic",
            mean=self.mean,
            std=self.std,
        )
        return _parted(transform.transforms[2:] if self._fits else transform.transforms)

    def _augmentation(self) -> tuple[v2.Compose | None, _Finish]:
        """What is done to each training image, and then to a batch of them."""
        transform = create_transform(
            self.image_size,
            is_training=True,
            interpolation="bicubic",
            mean=self.mean,
            std=self.std,
            **self.augment,
        )
        steps = transform.transforms[1:]  # in place of timm's crop
        if not self._fits:
            steps = [v2.Resize(self.image_size, v2.InterpolationMode.BICUBIC), *steps]
        return _parted(steps, self.padding)

    @property
    def _fits(self) -> bool:
        return self.image_size == self.side


class _Images(Dataset[tuple[np.ndarray, int]]):
    """Images `(H, W, 3)` of 8 bits, or their files, each with its class.

    Args:
        samples: images or files, and their classes.
        classes: names.
        side: pixels each side of all of them.

    Attributes:
        each: what is done to images one by one, if anything.
    """

    def __init__(
        self, samples: Iterable[tuple[np.ndarray | Path, int]], classes: list[str], side: int
    ) -> None:
        self.samples = list(samples)
        self.classes = classes
        self.side = side
        self.each: v2.Compose | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        image, label = self.samples[index]
        if isinstance(image, Path):
            image = self._read(image)
        if self.each is not None:
            image = np.array(self.each(Image.fromarray(image)))
        return image, label

    def hold(self) -> None:
        """Read files once for all: it takes longer than all else that is done to an image."""
        self.samples = [
            (self._read(image) if isinstance(image, Path) else image, label)
            for image, label in self.samples
        ]

    def _read(self, path: Path) -> np.ndarray:
        image = read_image(path)
        if image.size != (self.side, self.side):
            raise DatasetError(
                f"{path} is of {image.width}x{image.height} pixels; expected {self.side}x"
                f"{self.side}; get the data set again, or resize its images"
            )
        return np.array(image)


class _Finish:
    """Makes a batch of what a data set of small images holds.

    To crop, flip and normalise such images one by one takes most of a loader's time.

    Args:
        steps: what is done to tensors.
        padding: pixels by which images are moved at most, each at random; what was beyond their
            edges is black.
        flip: the probability with which an image is mirrored.
    """

    def __init__(self, steps: Sequence[Any], padding: int, flip: float) -> None:
        self._steps = v2.Compose(steps)
        self._padding = padding
        self._flip = flip

    def __call__(self, samples: list[tuple[np.ndarray, int]]) -> tuple[Tensor, Tensor]:
        images, labels = default_collate(samples)
        if self._padding or self._flip:
            images = self._moved(images)
        # as torchvision's to_tensor, to the last bit
        return self._steps(images.permute(0, 3, 1, 2).contiguous().float() / 255), labels

    def _moved(self, images: Tensor) -> Tensor:
        count, height, width, _ = images.shape
        padded = pad(images, [0, 0, *[self._padding] * 4])
        top, left = torch.randint(2 * self._padding + 1, (2, count, 1))
        rows, columns = top + torch.arange(height), left + torch.arange(width)
        columns = torch.where(torch.rand(count, 1) < self._flip, columns.flip(1), columns)
        return padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None]]


def _parted(steps: Sequence[Any], padding: int = 0) -> tuple[v2.Compose | None, _Finish]:
    """Divide timm's steps where they make tensors, and have batches flipped, not images."""
    (middle,) = (at for at, step in enumerate(steps) if isinstance(step, MaybeToTensor))
    flips = [step for step in steps[:middle] if isinstance(step, RandomHorizontalFlip)]
    each = [step for step in steps[:middle] if step not in flips]
    finish = _Finish(steps[middle + 1 :], padding, sum(step.p for step in flips))
    return v2.Compose(each) if each else None, finish


class CIFARDataModule(SmallImagesDataModule):
    """The official files of a CIFAR where they are there, else folders `train` and `test`.

    These hold a folder a class. Arguments as in `SmallImagesDataModule`.
    """

    side = 32
    official: type[datasets.CIFAR10]

    @property
    def is_official(self) -> bool:
        """Whether the official files are there."""
        return (self.published.folder / self.official.base_folder).is_dir()

    @property
    def title(self) -> str:
        """Images in folders may be others than the official ones, such as compressed ones."""
        return self.name if self.is_official else f"{self.name}_folders"

    def require(self, training: bool) -> None:
        """Look at the official files, or at the folders of the classes.

        Raises:
            MissingDataError: a file or folder is not there, or a folder is empty.
            DatasetError: an official file is not what it should be, or there are more or fewer
                class folders than `num_classes`.
        """
        splits: list[Split] = ["train", "test"] if training else ["test"]
        if not self.is_official:
            folders = [self.published.folder / split for split in splits]
            self.published.require(*folders)
            for each in reversed(folders):
                require_classes(self.published, each, self.num_classes, like=folders[-1])
            return
        folder = self.published.folder / self.official.base_folder
        named = {"train": self.official.train_list, "test": self.official.test_list}
        meta = (self.official.meta["filename"], self.official.meta["md5"])
        for name, md5 in [meta, *(each for split in splits for each in named[split])]:
            self.published.require(folder / name)
            if not check_integrity(str(folder / name), md5):
                raise DatasetError(
                    f"{(folder / name).absolute()} is not the official file, whose MD5 is {md5}; "
                    f"{self.published.remedy}"
                )

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        for images in (self.train, self.test) if stage in (None, "fit") else (self.test,):
            images.hold()

    def images(self, split: Split) -> _Images:
        folder = self.published.folder
        if not self.is_official:
            return _in_folders(folder / split, self.side)
        official = self.official(str(folder), train=split == "train")
        return _Images(
            zip(official.data, official.targets, strict=True), official.classes, self.side
        )


class CIFAR10DataModule(CIFARDataModule):
    """CIFAR-10 (Krizhevsky, 2009). Arguments as in `SmallImagesDataModule`."""

    name = "cifar10"
    published = CIFAR10
    official = datasets.CIFAR10
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)
    num_classes = 10


class CIFAR100DataModule(CIFARDataModule):
    """CIFAR-100 (Krizhevsky, 2009). Arguments as in `SmallImagesDataModule`."""

    name = "cifar100"
    published = CIFAR100
    official = datasets.CIFAR100
    mean = (0.5071, 0.4865, 0.4409)
    std = (0.2673, 0.2564, 0.2762)
    num_classes = 100


class TinyImageNetDataModule(SmallImagesDataModule):
    """Tiny-ImageNet: 200 classes of ImageNet at 64x64, 500 images each, and 50 to test on.

    From `tiny-imagenet-200`, as it is unpacked: `val/val_annotations.txt` names the classes of what
    is tested. Arguments as in `SmallImagesDataModule`.
    """

    name = "tiny_imagenet"
    test_split = "val"
    published = TINY_IMAGENET
    side = 64
    mean = IMAGENET_DEFAULT_MEAN
    std = IMAGENET_DEFAULT_STD
    num_classes = 200

    def require(self, training: bool) -> None:
        """Look at the folders of the classes, and at what names those of the tested images.

        Raises:
            MissingDataError: a file or folder is not there, or is empty.
            DatasetError: there are more or fewer classes than `num_classes`, or the file of
                annotations names others.
        """
        self._classes()
        self.published.require(self.published.folder / "val" / "images")
        self._annotated()

    def images(self, split: Split) -> _Images:
        if split == "train":
            return _in_folders(self.published.folder / "train", self.side)
        return _Images(self._annotated(), self._classes(), self.side)

    def _classes(self) -> list[str]:
        folder = self.published.folder / "train"
        return [each.name for each in require_classes(self.published, folder, self.num_classes)]

    def _annotated(self) -> list[tuple[Path, int]]:
        """The tested images, each with its class."""
        file = self.published.folder / "val" / "val_annotations.txt"
        self.published.require(file)
        labels = {name: label for label, name in enumerate(self._classes())}
        found = []
        for number, line in enumerate(file.read_text().splitlines(), 1):
            image, _, rest = line.partition("\t")
            wanted = rest.partition("\t")[0]
            if wanted not in labels:
                raise DatasetError(
                    f"{file}, line {number}: class {wanted!r}; expected one of the "
                    f"{len(labels)} folders of {self.published.folder / 'train'}"
                )
            found.append((file.with_name("images") / image, labels[wanted]))
        self.published.require(*(path for path, _ in found))
        return found


def _in_folders(folder: Path, side: int) -> _Images:
    found = datasets.ImageFolder(str(folder))
    return _Images(((Path(file), label) for file, label in found.samples), found.classes, side)

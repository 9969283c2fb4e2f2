"""The base of data sets whose images are too small to crop parts of random size from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision import datasets
from torchvision.transforms import RandomHorizontalFlip, v2

from spikebench.task import MissingDataError
from spikebench_tasks.classification.datamodule import DataModule
from spikebench_tasks.classification.folders import read_image
from spikebench_tasks.classification.options import Augmentation, typed
from spikebench_tasks.datasets import DatasetError, Split
from spikebench_tasks.datasets.published import evenly_spread


class SmallImagesDataModule(DataModule):
    """Images too small to crop parts of random size from; a subclass says which.

    Training images are padded by `padding` and cropped at random, and flipped; all are normalised
    by a mean and deviation.

    Args:
        num_classes: number of classes; None is the data set's.
        image_size: pixels per side; None is that of the files; images are resized to others.
        batch_size: images per step and process.
        num_workers: loader processes.
        padding: pixels by which training images are padded before they are cropped.
        augment: what happens to training images besides; a dictionary of its fields, too.
        limit: use at most this many images of each split, spread evenly over them.
        data_root: holds one folder per data set; None is $SPIKEBENCH_DATA, else `data`.

    Attributes:
        side: pixels per side of the files.
    """

    side: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    train: SmallImages
    test: SmallImages

    def __init__(
        self,
        num_classes: int | None = None,
        image_size: int | None = None,
        batch_size: int = 128,
        num_workers: int = 2,
        padding: int = 4,
        augment: Augmentation | None = None,
        limit: int | None = None,
        data_root: Path | None = None,
    ) -> None:
        size = image_size or self.side
        super().__init__(num_classes, size, batch_size, num_workers, limit, data_root)
        self.padding = padding
        self.augment = typed(Augmentation, augment or {}, "data.augment")

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

    def images(self, split: Split) -> SmallImages:
        """The images of a split."""
        raise NotImplementedError

    def _loader(self, dataset: Any, **options: Any) -> DataLoader:
        training = dataset is getattr(self, "train", None)
        finish = self._finish_train if training else self._finish_test
        return super()._loader(dataset, collate_fn=finish, **options)

    def _limited(self, split: Split) -> SmallImages:
        images = self.images(split)
        images.samples = [images.samples[at] for at in evenly_spread(len(images), self.limit)]
        return images

    def _transform(self) -> tuple[v2.Compose | None, _Finish]:
        """What is done to each tested image, and then to a batch of them."""
        from timm.data import create_transform

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
        from timm.data import create_transform

        transform = create_transform(
            self.image_size,
            is_training=True,
            interpolation="bicubic",
            mean=self.mean,
            std=self.std,
            **asdict(self.augment),
        )
        steps = transform.transforms[1:]  # in place of timm's crop
        if not self._fits:
            steps = [v2.Resize(self.image_size, v2.InterpolationMode.BICUBIC), *steps]
        return _parted(steps, self.padding)

    @property
    def _fits(self) -> bool:
        return self.image_size == self.side


class SmallImages(Dataset[tuple[np.ndarray, int]]):
    """Images `(H, W, 3)` of 8 bits, or their files, each with its class.

    Args:
        samples: images or files, and their classes.
        classes: names.
        side: pixels per side of all of them.

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
    from timm.data.transforms import MaybeToTensor

    (middle,) = (at for at, step in enumerate(steps) if isinstance(step, MaybeToTensor))
    flips = [step for step in steps[:middle] if isinstance(step, RandomHorizontalFlip)]
    each = [step for step in steps[:middle] if step not in flips]
    finish = _Finish(steps[middle + 1 :], padding, sum(step.p for step in flips))
    return v2.Compose(each) if each else None, finish


def in_folders(folder: Path, side: int) -> SmallImages:
    """Return the images of one folder per class, in the order of the classes' names."""
    found = datasets.ImageFolder(str(folder))
    return SmallImages(((Path(file), label) for file, label in found.samples), found.classes, side)

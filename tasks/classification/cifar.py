"""CIFAR-10 and CIFAR-100: the official files, or images in class folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from timm.data import create_transform
from torch.utils.data import Subset
from torchvision import datasets
from torchvision.datasets.utils import check_integrity
from torchvision.transforms import v2

from tasks.classification.data import DataModule, require_classes
from tasks.datasets import DatasetError
from tasks.datasets.published import CIFAR10, CIFAR100, Published, evenly_spread

Split = Literal["train", "test"]


class CIFARDataModule(DataModule):
    """32x32 images; a subclass says which.

    The official files are read where they are there, else the folders `train` and `test`, which
    hold a folder a class. Training images are padded by `padding` and cropped at random, and
    flipped; all are normalised by the mean and deviation of the training images.

    Args:
        num_classes: how many classes.
        image_size: pixels each side; others than 32 are resized.
        batch_size: images a step.
        num_workers: loader processes.
        padding: pixels by which training images are padded before they are cropped.
        augment: what timm's `create_transform` does to training images besides: auto_augment,
            re_prob, color_jitter, ...
        limit: use only so many images of each split, spread evenly over them.
    """

    published: Published
    official: type[datasets.CIFAR10]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    train: Subset
    test: Subset

    def __init__(
        self,
        num_classes: int,
        image_size: int = 32,
        batch_size: int = 128,
        num_workers: int = 2,
        padding: int = 4,
        augment: Mapping[str, Any] | None = None,
        limit: int | None = None,
    ) -> None:
        super().__init__(num_classes, image_size, batch_size, num_workers, limit)
        self.padding = padding
        self.augment = {"color_jitter": None, **(augment or {})}

    @property
    def is_official(self) -> bool:
        """Whether the official files are there."""
        return (self.published.folder / self.official.base_folder).is_dir()

    def require(self, training: bool) -> None:
        """Look at the official files, or at the folders of the classes.

        Raises:
            MissingDataError: a file or folder is not there, or a folder is empty.
            DatasetError: an official file is not what it should be, or there are more or fewer
                class folders than `num_classes`.
        """
        splits: list[Split] = ["train", "test"] if training else ["test"]
        if not self.is_official:
            for split in splits:
                require_classes(self.published, self.published.folder / split, self.num_classes)
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
        training = stage in (None, "fit")
        self.require(training)
        if training:
            self.train = self._images("train", self._augmentation())
        self.test = self._images("test", self._transform())
        self.classes = self.test.dataset.classes  # type: ignore[attr-defined]

    @property
    def train_samples(self) -> int | None:
        """Images to train on; None where there are none."""
        if not self.is_official and not (self.published.folder / "train").is_dir():
            return None
        return len(self._images("train", self._transform()))

    def _transform(self) -> Callable[..., Any]:
        return create_transform(
            self.image_size,
            crop_pct=1.0,
            interpolation="bicubic",
            mean=self.mean,
            std=self.std,
        )

    def _augmentation(self) -> Callable[..., Any]:
        transform = create_transform(
            self.image_size,
            is_training=True,
            interpolation="bicubic",
            mean=self.mean,
            std=self.std,
            **self.augment,
        )
        # timm crops parts of random size, of which 32x32 images have none to spare
        crop = v2.RandomCrop(self.image_size, padding=self.padding)
        steps = transform.transforms[1:]
        if self.image_size != 32:
            crop = v2.Compose([v2.Resize(self.image_size, v2.InterpolationMode.BICUBIC), crop])
        return v2.Compose([crop, *steps])

    def _images(self, split: Split, transform: Callable[..., Any]) -> Subset:
        folder = self.published.folder
        images: Any
        if self.is_official:
            images = self.official(str(folder), train=split == "train", transform=transform)
        else:
            images = datasets.ImageFolder(str(folder / split), transform)
        return Subset(images, evenly_spread(len(images), self.limit))


class CIFAR10DataModule(CIFARDataModule):
    """CIFAR-10 (Krizhevsky, 2009). Arguments as in `CIFARDataModule`."""

    name = "cifar10"
    published = CIFAR10
    official = datasets.CIFAR10
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)

    def __init__(self, num_classes: int = 10, **options: Any) -> None:
        super().__init__(num_classes, **options)


class CIFAR100DataModule(CIFARDataModule):
    """CIFAR-100 (Krizhevsky, 2009). Arguments as in `CIFARDataModule`."""

    name = "cifar100"
    published = CIFAR100
    official = datasets.CIFAR100
    mean = (0.5071, 0.4865, 0.4409)
    std = (0.2673, 0.2564, 0.2762)

    def __init__(self, num_classes: int = 100, **options: Any) -> None:
        super().__init__(num_classes, **options)

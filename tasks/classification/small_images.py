"""Data sets of small images: CIFAR-10, CIFAR-100 and Tiny-ImageNet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, create_transform
from torch.utils.data import Subset
from torchvision import datasets
from torchvision.datasets.utils import check_integrity
from torchvision.transforms import v2

from benchmark.task import MissingDataError
from tasks.classification.data import DataModule, read_image, require_classes
from tasks.datasets import DatasetError, Split
from tasks.datasets.published import CIFAR10, CIFAR100, TINY_IMAGENET, Published, evenly_spread


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
    train: Subset
    test: Subset

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
            self.train = self._limited("train", self._augmentation())
        self.test = self._limited("test", self._transform())
        self.classes = self.test.dataset.classes  # type: ignore[attr-defined]

    @property
    def train_samples(self) -> int | None:
        """Images to train on; None where there are none."""
        try:
            return len(self._limited("train", None))
        except (FileNotFoundError, MissingDataError):
            return None

    def images(self, split: Split, transform: Callable[..., Any] | None) -> datasets.VisionDataset:
        """The images of a split, with `classes`."""
        raise NotImplementedError

    def _limited(self, split: Split, transform: Callable[..., Any] | None) -> Subset:
        images = self.images(split, transform)
        return Subset(images, evenly_spread(len(images), self.limit))

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
        crop = v2.RandomCrop(self.image_size, padding=self.padding)
        steps = transform.transforms[1:]  # in place of timm's crop
        if self.image_size != self.side:
            crop = v2.Compose([v2.Resize(self.image_size, v2.InterpolationMode.BICUBIC), crop])
        return v2.Compose([crop, *steps])


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

    def images(self, split: Split, transform: Callable[..., Any] | None) -> datasets.VisionDataset:
        folder = self.published.folder
        if self.is_official:
            return self.official(str(folder), train=split == "train", transform=transform)
        return datasets.ImageFolder(str(folder / split), transform, loader=read_image)


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

    def images(self, split: Split, transform: Callable[..., Any] | None) -> datasets.VisionDataset:
        if split == "train":
            return datasets.ImageFolder(
                str(self.published.folder / "train"), transform, loader=read_image
            )
        return _NamedImages(self._annotated(), self._classes(), transform)

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


class _NamedImages(datasets.VisionDataset):
    def __init__(
        self,
        samples: list[tuple[Path, int]],
        classes: list[str],
        transform: Callable[..., Any] | None,
    ) -> None:
        super().__init__(transform=transform)
        self.samples = samples
        self.classes = classes

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        path, label = self.samples[index]
        image = read_image(path)
        return (image if self.transform is None else self.transform(image)), label

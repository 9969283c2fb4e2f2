"""LightningDataModules of image classification."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import lightning as L
import numpy as np
import torch
from PIL import Image
from timm.data import create_transform
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Subset
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms import v2

from spikebench.task import MissingDataError
from spikebench_tasks.datasets import DatasetError, Split
from spikebench_tasks.datasets.digits import CLASSES, load_glyphs
from spikebench_tasks.datasets.published import IMAGENET, Published, evenly_spread

CROP_PCT = 0.875  # the share of the shorter side that the centre crop keeps


class Samples(Protocol):
    """A data set of so many samples."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class DataModule(L.LightningDataModule):
    """What a classification needs of a data set: loaders, and what a model is built by.

    A subclass sets `train` and `test` in `setup`; `require` says what is missing on disk before
    anything is built.

    Args:
        num_classes: how many classes; None as many as the class says.
        image_size: pixels each side.
        batch_size: images a step.
        num_workers: loader processes.
        limit: use only so many images of each split.

    Attributes:
        name: as in a configuration.
        classes: their names, in the order of the labels; known after `setup`.
        test_split: what the data set calls the split that is scored.
        time_steps: T of the frames; None of images.
    """

    name: str
    classes: Sequence[str]
    time_steps: int | None = None
    test_split: str = "test"
    train: Samples
    test: Samples

    num_classes: int

    def __init__(
        self,
        num_classes: int | None,
        image_size: int,
        batch_size: int,
        num_workers: int,
        limit: int | None,
    ) -> None:
        super().__init__()
        if num_classes is not None:
            self.num_classes = num_classes
        self.image_size = image_size
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.limit = limit
        self._seed: int | None = None

    def require(self, training: bool) -> None:
        """Look whether what testing needs, and `training` with it, is there."""

    @property
    def title(self) -> str:
        """What records call the data set."""
        return self.name

    @property
    def train_samples(self) -> int | None:
        """Images to train on; None where there are none."""
        return len(self.train)

    def example(self) -> Tensor:
        """An image of noise, `(1, 3, H, W)`."""
        return torch.randn(1, 3, self.image_size, self.image_size)

    def train_dataloader(self) -> DataLoader:
        """Shuffled images; in a Trainer, by the seed and the epoch alone, so that it can resume.

        Several processes share out each epoch; as many images as they cannot share are left out.
        """
        if self.trainer is None:
            return self._loader(self.train, shuffle=True)
        order = EpochShuffle(self.train, self.run_seed(), self.trainer.current_epoch, self.share())
        return self._loader(
            self.train,
            sampler=order,
            worker_init_fn=partial(_seed_worker, order),
            generator=torch.Generator(),  # leaves torch's own, which the model draws from
        )

    def val_dataloader(self) -> DataLoader:
        """The test split: it shows the course of training, and chooses nothing."""
        return self.test_dataloader()

    def test_dataloader(self) -> DataLoader:
        """Images in order; of several processes each has its own, and every image is in one."""
        return self._loader(self.test, sampler=InOrder(self.test, self.share()))

    def share(self) -> tuple[int, int]:
        """Which of how many processes this is."""
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def run_seed(self) -> int:
        """What every epoch's order follows from: PyTorch's seed when it was first asked for.

        Of several processes it is the first one's.
        """
        if self._seed is None:
            self._seed = torch.initial_seed() % 2**32
            if self.trainer is not None:
                self._seed = self.trainer.strategy.broadcast(self._seed)
        return self._seed

    def _loader(self, dataset: Any, **options: Any) -> DataLoader:
        return DataLoader(dataset, self.batch_size, num_workers=self.num_workers, **options)


class EpochShuffle(DistributedSampler):
    """A random order that follows from seed and epoch, whatever was drawn before.

    Each process has every so-many-th item, and all have equally many, so that what they have in a
    step is what one of them alone would have. Lightning shares out no DistributedSampler again.

    Args:
        dataset: the items.
        seed: of all epochs.
        epoch: the first; Lightning sets later ones.
        share: which of how many processes this is.
    """

    def __init__(
        self, dataset: Samples, seed: int, epoch: int = 0, share: tuple[int, int] = (0, 1)
    ) -> None:
        rank, processes = share
        super().__init__(cast(Dataset, dataset), processes, rank, seed=seed, drop_last=True)
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        order = torch.Generator().manual_seed(derived_seed(self.seed, self.epoch))
        shuffled = torch.randperm(len(cast(Samples, self.dataset)), generator=order)
        return iter(shuffled[self.rank : self.total_size : self.num_replicas].tolist())


class InOrder(DistributedSampler):
    """Every item once, in order, in one of the processes, of which some may have none.

    Args:
        dataset: the items.
        share: which of how many processes this is.
    """

    def __init__(self, dataset: Samples, share: tuple[int, int]) -> None:
        rank, processes = share
        super().__init__(cast(Dataset, dataset), processes, rank)
        self._own = range(rank, len(dataset), processes)

    def __len__(self) -> int:
        return len(self._own)

    def __iter__(self) -> Iterator[int]:
        return iter(self._own)


def derived_seed(*numbers: int) -> int:
    """A seed made of several numbers, such as a seed and an epoch."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _seed_worker(order: EpochShuffle, worker: int) -> None:
    seed = derived_seed(order.seed, order.epoch, order.rank, worker)
    L.seed_everything(seed, verbose=False)


def require_classes(
    published: Published,
    folder: Path,
    num_classes: int,
    suffixes: Collection[str] = IMG_EXTENSIONS,
    like: Path | None = None,
) -> list[Path]:
    """The class folders of a split, in the order of their names, which is that of the labels.

    Args:
        published: the data set.
        folder: that of the split.
        num_classes: how many there must be.
        suffixes: of the files that each must have one of, at any depth.
        like: the folder of another split, of the same classes.

    Raises:
        MissingDataError: the folder is not there, or is or holds one without such a file.
        DatasetError: there are more or fewer classes than `num_classes`, or others than in `like`.
    """
    published.require(folder)
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    if len(classes) != num_classes:
        raise DatasetError(
            f"{folder.absolute()} holds {len(classes)} class folders; expected {num_classes} "
            f"(data.num_classes); {published.remedy}"
        )
    for each in classes:
        if not any(path.suffix.lower() in suffixes for path in each.rglob("*")):
            raise MissingDataError(
                f"{published.title} is missing: {each.absolute()} holds none of "
                f"{', '.join(sorted(suffixes))}; {published.remedy}"
            )
        if like is not None and not (like / each.name).is_dir():
            raise DatasetError(
                f"{folder.absolute()} has a class {each.name!r} that {like.absolute()} has not; "
                "labels are numbered by the names, so that both must have the same"
            )
    return classes


def read_image(file: str | Path | BinaryIO, name: str | None = None) -> Image.Image:
    """An image file in RGB.

    Args:
        file: its path, or its content.
        name: what it is called where it cannot be read; None is its path.

    Raises:
        DatasetError: it cannot be read; the message names it.
    """
    try:
        with Image.open(file) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = str(error).split(" '")[0].split(" <")[0]  # without the file, which is said before
        raise DatasetError(
            f"{name or file} cannot be read: {reason}; get the file again, or leave it out"
        ) from error


class Digits(Dataset[tuple[Tensor, int]]):
    """Handwritten digits as images (3, size, size), mean 0 and deviation 1.

    Args:
        split: "train" or "test".
        size: pixels each side; the 8x8 glyphs are enlarged.
        augment: whether to move, turn and scale each glyph at random.
        limit: only the first so many.
    """

    def __init__(
        self, split: Split, size: int = 32, augment: bool = False, limit: int | None = None
    ) -> None:
        glyphs = load_glyphs(split)
        mean, std = (getattr(load_glyphs("train").images, name)() for name in ("mean", "std"))
        images = (torch.from_numpy(glyphs.images[:limit]).unsqueeze(1) - mean) / std
        self.images = v2.functional.resize(images, [size, size], antialias=True)
        self.labels = glyphs.labels[:limit]
        background = float((0 - mean) / std)
        self.augment = (
            v2.RandomAffine(10, translate=(0.1, 0.1), scale=(0.85, 1.15), fill=background)
            if augment
            else None
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.images[index]
        if self.augment is not None:
            image = self.augment(image)
        return image.expand(3, -1, -1), int(self.labels[index])


class DigitsDataModule(DataModule):
    """Handwritten digits of scikit-learn, split by glyph.

    Args:
        image_size: pixels each side.
        batch_size: images a step.
        num_workers: loader processes.
        limit: use only so many images of each split.

    Example:
        >>> data = DigitsDataModule(batch_size=4); data.setup("test")
        >>> images, labels = next(iter(data.test_dataloader()))
        >>> images.shape
        torch.Size([4, 3, 32, 32])
    """

    name = "digits"

    def __init__(
        self,
        image_size: int = 32,
        batch_size: int = 64,
        num_workers: int = 0,
        limit: int | None = None,
    ) -> None:
        super().__init__(len(CLASSES), image_size, batch_size, num_workers, limit)

    def setup(self, stage: str | None = None) -> None:
        self.classes = CLASSES
        self.train = Digits("train", self.image_size, augment=True, limit=self.limit)
        self.test = Digits("test", self.image_size, limit=self.limit)


class ImageNetDataModule(DataModule):
    """ImageNet-1K, from `imagenet/{train,val}` below the data root, a folder a class.

    Test images are resized with bicubic interpolation until their shorter side is 8/7 of
    `image_size` (256 for 224), their centre is cropped, and they are normalised by ImageNet's mean
    and deviation.

    Args:
        num_classes: how many class folders there must be.
        image_size: pixels each side.
        batch_size: images a step.
        num_workers: loader processes.
        augment: what timm's `create_transform` does to training images besides random crops and
            flips: auto_augment, re_prob, color_jitter, ...
        limit: use only so many images of each split, spread evenly over the images in the order of
            their classes.
    """

    name = "imagenet"
    test_split = "val"

    def __init__(
        self,
        num_classes: int = 1000,
        image_size: int = 224,
        batch_size: int = 128,
        num_workers: int = 8,
        augment: Mapping[str, Any] | None = None,
        limit: int | None = None,
    ) -> None:
        super().__init__(num_classes, image_size, batch_size, num_workers, limit)
        self.augment = dict(augment or {})

    def require(self, training: bool) -> None:
        """Look at the folders of the classes.

        Raises:
            MissingDataError: a split is not there, or is empty.
            DatasetError: there are more or fewer classes than `num_classes`.
        """
        splits = [IMAGENET.folder / split for split in ("train", "val")[not training :]]
        IMAGENET.require(*splits)
        for folder in reversed(splits):
            require_classes(IMAGENET, folder, self.num_classes, like=splits[-1])

    def setup(self, stage: str | None = None) -> None:
        training = stage in (None, "fit")
        self.require(training)
        if training:
            self.train = self._images("train", is_training=True, **self.augment)
        self.test = self._images("val", crop_pct=CROP_PCT)
        self.classes = self.test.dataset.classes  # type: ignore[attr-defined]

    @property
    def train_samples(self) -> int | None:
        """Images to train on; None where the weights were trained elsewhere and none are here."""
        try:
            return len(self._images("train"))
        except FileNotFoundError:
            return None

    def _images(self, split: str, **options: Any) -> Subset:
        transform = create_transform(self.image_size, interpolation="bicubic", **options)
        images = ImageFolder(str(IMAGENET.folder / split), transform, loader=read_image)
        return Subset(images, evenly_spread(len(images), self.limit))

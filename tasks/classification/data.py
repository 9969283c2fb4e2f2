"""LightningDataModules of image classification."""

from __future__ import annotations

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmark.registry import unknown_name
from tasks.datasets.digits import CLASSES, Split, load_glyphs


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


class DigitsDataModule(L.LightningDataModule):
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
    num_classes = len(CLASSES)

    def __init__(
        self,
        image_size: int = 32,
        batch_size: int = 64,
        num_workers: int = 0,
        limit: int | None = None,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.limit = limit

    def setup(self, stage: str | None = None) -> None:
        self.train = Digits("train", self.image_size, augment=True, limit=self.limit)
        self.test = Digits("test", self.image_size, limit=self.limit)

    def train_dataloader(self) -> DataLoader:
        return self._loader(self.train, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        """The test split: it shows the course of training, and chooses nothing."""
        return self.test_dataloader()

    def test_dataloader(self) -> DataLoader:
        return self._loader(self.test, shuffle=False)

    def _loader(self, dataset: Dataset, shuffle: bool) -> DataLoader:
        return DataLoader(dataset, self.batch_size, shuffle, num_workers=self.num_workers)


_DATA_MODULES = {module.name: module for module in (DigitsDataModule,)}


def build_data_module(name: str, limit: int | None, **options: int) -> DigitsDataModule:
    """Build the data module of a data set by name.

    Raises:
        UnknownNameError: there is no such data set.
    """
    if name not in _DATA_MODULES:
        raise unknown_name("classification data set", name, _DATA_MODULES)
    return _DATA_MODULES[name](limit=limit, **options)

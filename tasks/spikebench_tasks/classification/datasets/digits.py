"""Handwritten digits of scikit-learn, as images."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from spikebench.registry import DATASETS
from spikebench_tasks.classification.datamodule import DataModule
from spikebench_tasks.datasets import Split
from spikebench_tasks.datasets.digits import CLASSES, load_glyphs


class Digits(Dataset[tuple[Tensor, int]]):
    """Handwritten digits as images (3, size, size), mean 0 and deviation 1.

    Args:
        split: "train" or "test".
        size: pixels per side; the 8x8 glyphs are enlarged.
        augment: whether to move, turn and scale each glyph at random.
        limit: number of images; None is all.
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


@DATASETS.register(name="digits")
class DigitsDataModule(DataModule):
    """Handwritten digits of scikit-learn, split by glyph.

    Args:
        image_size: pixels per side.
        batch_size: images per step and process.
        num_workers: loader processes.
        limit: use at most this many images of each split.
        data_root: not used; the digits come with scikit-learn.

    Example:
        >>> data = DigitsDataModule(batch_size=4); data.setup("test")
        >>> images, labels = next(iter(data.test_dataloader()))
        >>> images.shape
        torch.Size([4, 3, 32, 32])
    """

    def __init__(
        self,
        image_size: int = 32,
        batch_size: int = 64,
        num_workers: int = 0,
        limit: int | None = None,
        data_root: Path | None = None,
    ) -> None:
        super().__init__(len(CLASSES), image_size, batch_size, num_workers, limit, data_root)

    def setup(self, stage: str | None = None) -> None:
        self.classes = CLASSES
        self.train = Digits("train", self.image_size, augment=True, limit=self.limit)
        self.test = Digits("test", self.image_size, limit=self.limit)

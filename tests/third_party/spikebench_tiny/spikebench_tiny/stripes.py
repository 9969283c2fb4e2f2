"""A data set of its own: horizontal and vertical stripes, which are drawn when asked for."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from spikebench_tasks.classification.datamodule import DataModule

CLASSES = ("horizontal", "vertical")
COUNTS = {"train": 64, "test": 32}


def draw(split: str, size: int = 32, limit: int | None = None) -> tuple[Tensor, Tensor]:
    """Images `(B, 3, size, size)` with noise, and the class of each, `(B,)`."""
    count = min(limit or COUNTS[split], COUNTS[split])
    generator = torch.Generator().manual_seed(sorted(COUNTS).index(split))
    labels = torch.arange(count) % 2
    stripes = torch.where(torch.arange(size) % 8 < 4, 1.0, -1.0).expand(size, size)
    images = torch.where(labels[:, None, None] == 1, stripes, stripes.T).unsqueeze(1)
    noise = 0.1 * torch.randn(count, 1, size, size, generator=generator)
    return (images + noise).expand(-1, 3, -1, -1).contiguous(), labels


class StripesDataModule(DataModule):
    """Stripes of two directions."""

    def __init__(
        self,
        image_size: int = 32,
        batch_size: int = 8,
        num_workers: int = 0,
        limit: int | None = None,
        data_root: Path | None = None,
    ) -> None:
        super().__init__(len(CLASSES), image_size, batch_size, num_workers, limit, data_root)

    def setup(self, stage: str | None = None) -> None:
        """Draw both splits."""
        self.classes = CLASSES
        self.train, self.test = (
            TensorDataset(*draw(split, self.image_size, self.limit)) for split in ("train", "test")
        )

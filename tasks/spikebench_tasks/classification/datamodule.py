"""The base of all data modules of classification."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from spikebench.files import data_root as default_data_root
from spikebench_tasks.classification.samplers import EpochShuffle, InOrder, Samples, seed_worker
from spikebench_tasks.datasets.published import Published


class DataModule(L.LightningDataModule):
    """Loaders of a data set, and what a model must know of it; works in any Trainer.

    A subclass sets `train`, `test` and `classes` in `setup`; `require` checks that the files are
    there before anything is built.

    Args:
        num_classes: number of classes; None takes the class attribute.
        image_size: pixels per side.
        batch_size: images per step and process.
        num_workers: loader processes.
        limit: use only this many images of each split.
        data_root: holds one folder per data set; None is $SPIKEBENCH_DATA, else `data`.

    Attributes:
        name: as registered if `build_data_module` built it, else the class's.
        published: where its files lie and where to get them; not of the digits.
        classes: names by label; known after `setup`.
        test_split: the data set's own name of the split that is scored.
        time_steps: T of the frames; None of images.
    """

    name: str
    published: Published
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
        data_root: Path | None = None,
    ) -> None:
        super().__init__()
        self.name = type(self).__name__
        self.data_root = default_data_root(data_root)
        if num_classes is not None:
            self.num_classes = num_classes
        self.image_size = image_size
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.limit = limit
        self._seed: int | None = None

    def require(self, training: bool) -> None:
        """Check that the files of testing are there, and with `training` those of training."""

    @property
    def folder(self) -> Path:
        """Where the data set is looked for."""
        return self.published.folder(self.data_root)

    @property
    def title(self) -> str:
        """The data set's name in records."""
        return self.name

    @property
    def train_samples(self) -> int | None:
        """Number of training images; None if they are not there."""
        return len(self.train) if hasattr(self, "train") else None

    def example(self) -> Tensor:
        """An image of noise, `(1, 3, H, W)`."""
        return torch.randn(1, 3, self.image_size, self.image_size)

    def train_dataloader(self) -> DataLoader:
        """Shuffled images; in a Trainer by seed and epoch alone, so that a run can resume.

        Processes share out each epoch; images that do not divide evenly are dropped.
        """
        if self.trainer is None:
            return self._loader(self.train, shuffle=True)
        order = EpochShuffle(self.train, self.run_seed(), self.trainer.current_epoch, self.share())
        return self._loader(
            self.train,
            sampler=order,
            worker_init_fn=partial(seed_worker, order),
            generator=torch.Generator(),  # leaves torch's own, which the model draws from
        )

    def val_dataloader(self) -> DataLoader:
        """The test split: it shows how training goes and chooses nothing."""
        return self.test_dataloader()

    def test_dataloader(self) -> DataLoader:
        """Images in order, each in exactly one of the processes."""
        return self._loader(self.test, sampler=InOrder(self.test, self.share()))

    def predict_dataloader(self) -> DataLoader:
        """The test split, as in `test_dataloader`."""
        return self.test_dataloader()

    def share(self) -> tuple[int, int]:
        """Rank and number of processes."""
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def run_seed(self) -> int:
        """Return the seed of the order of all epochs: rank 0's of PyTorch at the first call."""
        if self._seed is None:
            self._seed = torch.initial_seed() % 2**32
            if self.trainer is not None:
                self._seed = self.trainer.strategy.broadcast(self._seed)
        return self._seed

    def _loader(self, dataset: Any, **options: Any) -> DataLoader:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,  # by name: Lightning makes the loader anew to predict
            num_workers=self.num_workers,
            **options,
        )

"""In what order images come, and how processes share them out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, cast

import torch
from torch.utils.data import Dataset, DistributedSampler

from spikebench.seeding import derived_seed, seed_everything


class Samples(Protocol):
    """A data set with a length."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class EpochShuffle(DistributedSampler):
    """Shuffles by seed and epoch alone, whatever was drawn before.

    Items are dealt to ranks in turn, equally many to each, so that together they have in a step
    what one process would have. As a DistributedSampler it is left alone by Lightning.

    Args:
        dataset: the items.
        seed: the same in all epochs.
        epoch: the first one; Lightning sets later ones.
        share: rank and number of processes.
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
    """Yields each item exactly once across ranks, in order; a rank may get none.

    As a DistributedSampler it is left alone by Lightning, which would repeat items to give every
    rank equally many.

    Args:
        dataset: the items.
        share: rank and number of processes.
    """

    def __init__(self, dataset: Samples, share: tuple[int, int]) -> None:
        rank, processes = share
        super().__init__(cast(Dataset, dataset), processes, rank)
        self._own = range(rank, len(dataset), processes)

    def __len__(self) -> int:
        return len(self._own)

    def __iter__(self) -> Iterator[int]:
        return iter(self._own)


def seed_worker(order: EpochShuffle, worker: int) -> None:
    """Seed a loader's worker by the run's seed, the epoch, the rank and its own number."""
    seed_everything(derived_seed(order.seed, order.epoch, order.rank, worker))

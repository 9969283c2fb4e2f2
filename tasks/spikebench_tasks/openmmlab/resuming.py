"""Resuming in the middle of an epoch, with the batch that would have come next.

MMEngine resumes with the first batch of the epoch or, if it counts iterations, loads the images of
all earlier iterations again and throws them away. Here the samplers are advanced instead, which
loads no image.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DATA_SAMPLERS, FUNCTIONS
from mmengine.runner import IterBasedTrainLoop, Runner
from torch.utils.data import BatchSampler

from spikebench.errors import UserError
from spikebench.seeding import derived_seed, seed_everything
from spikebench.weights.loading import WeightsError, read_weights
from spikebench_tasks.checkpoints import resumable_checkpoint


class Resumption(NamedTuple):
    """A checkpoint to resume from, with the number of finished epochs and iterations."""

    checkpoint: Path
    epoch: int
    iteration: int


def find_resumption(folder: Path, processes: int) -> Resumption | None:
    """Find the checkpoint to resume from; None if there is none.

    Args:
        folder: the run's.
        processes: how many will train.

    Raises:
        WeightsError: the newest checkpoint is truncated, or none of MMEngine's.
        UserError: it was made by another number of processes, so that its iterations differ.
    """
    checkpoint = resumable_checkpoint(folder)
    if checkpoint is None:
        return None
    meta = read_weights(checkpoint).get("meta")
    if not isinstance(meta, Mapping) or not {"epoch", "iter"} <= meta.keys():
        raise WeightsError(f"{checkpoint} holds no epoch and iteration to go on from; delete it")
    before = meta.get("processes", 1)
    if before != processes:
        raise UserError(
            f"{checkpoint} is of {before} processes, and there are {processes}; "
            f"start {before}, or delete {folder} to train from the beginning"
        )
    return Resumption(checkpoint, meta["epoch"], meta["iter"])


def resume(config: Config, found: Resumption, seed: int, rank: int) -> None:
    """Make a configuration resume from a checkpoint and the batch after it.

    Args:
        config: is changed.
        found: the checkpoint.
        seed: of the run.
        rank: number of this process.
    """
    config.load_from, config.resume = str(found.checkpoint), True
    loader = config.train_dataloader
    loader.batch_sampler = {
        "type": "ResumedBatches",
        "batches": loader.get("batch_sampler"),
        "drop_last": loader.pop("drop_last", False),
        "epoch": found.epoch,
        "iteration": found.iteration,
        "seed": seed,
        "rank": rank,
    }


@DATA_SAMPLERS.register_module()
class ResumedBatches(BatchSampler):
    """The batches of a sampler from some iteration on; in later epochs, all of them.

    Args:
        sampler: gives indices.
        batch_size: indices a batch.
        batches: configuration of a batch sampler; None cuts the sampler's indices into batches.
        drop_last: whether an incomplete last batch is dropped, if `batches` is None.
        epoch: finished passes over the data.
        iteration: finished batches, of all passes.
        seed: of the run.
        rank: number of this process.
    """

    def __init__(
        self,
        sampler: Any,
        batch_size: int,
        batches: Mapping[str, Any] | None = None,
        drop_last: bool = False,
        epoch: int = 0,
        iteration: int = 0,
        seed: int = 0,
        rank: int = 0,
    ) -> None:
        if batches is None:
            self._batches = BatchSampler(sampler, batch_size, drop_last)
        else:
            given = {"sampler": sampler, "batch_size": batch_size}
            self._batches = DATA_SAMPLERS.build(dict(batches), default_args=given)
        super().__init__(sampler, batch_size, self._batches.drop_last)
        self._sampler = sampler
        self._done = max(0, iteration - epoch * len(self))
        self._random = (seed, iteration, rank)
        self.restarts = 0

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        done, self._done = self._done, 0
        batches = iter(self._batches)
        for _ in range(done):
            if next(batches, None) is None:  # a sampler that ends, and a loop that does not
                self.restarts += 1
                self._sampler.set_epoch(self.restarts)
                batches = iter(self._batches)
                next(batches)
        return self._begun(batches) if done else batches

    def _begun(self, batches: Iterator[list[int]]) -> Iterator[list[int]]:
        # the loader has just drawn a number, as it does at the beginning of an epoch
        seed_everything(derived_seed(*self._random))
        yield from batches


class ResumeIterationsHook(Hook):
    """Keeps an iteration-based loop from loading images that were trained on already."""

    def before_train(self, runner: Runner) -> None:
        loop = runner.train_loop
        sampler = loop.dataloader.batch_sampler
        if isinstance(loop, IterBasedTrainLoop) and isinstance(sampler, ResumedBatches):
            loop.dataloader_iterator._epoch = sampler.restarts
            skipped = itertools.repeat(None, loop.iter)
            loop.dataloader_iterator = itertools.chain(skipped, loop.dataloader_iterator)


@FUNCTIONS.register_module()
def seed_worker(worker_id: int, rank: int, iteration: int) -> None:
    """Seed a data loader worker.

    Torch draws a new seed for workers each epoch. MMEngine's own function would repeat the same
    random numbers in every epoch and after every resume.

    Args:
        worker_id: number of the worker; torch's seed tells it already.
        rank: number of the training process.
        iteration: where this part of the training begins.
    """
    seed_everything(derived_seed(torch.initial_seed(), rank, iteration))

"""Going on in the middle of the data, where an interrupted training stopped.

MMEngine goes on with the first batch of the epoch, or, where it counts iterations, loads all images
of all iterations before once more to throw them away. Here the samplers are advanced, which takes
no image, and the first batch is the one that would have come next.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DATA_SAMPLERS, FUNCTIONS
from mmengine.runner import IterBasedTrainLoop, Runner
from torch.utils.data import BatchSampler

from spikebench.errors import UserError
from spikebench.weights.loading import WeightsError, read_weights
from spikebench_tasks.checkpoints import resumable_checkpoint


class Resumption(NamedTuple):
    """A checkpoint to go on from, after so many whole epochs, or iterations of any epoch."""

    checkpoint: Path
    epoch: int
    iteration: int


def find_resumption(folder: Path, processes: int) -> Resumption | None:
    """Where training goes on from, if it began before.

    Args:
        folder: the run's.
        processes: how many will train.

    Raises:
        WeightsError: the newest checkpoint is truncated, or none of MMEngine's.
        UserError: it is of another number of processes, in which its iterations count otherwise.
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


def restart_randomness(*key: int) -> None:
    """Seed all random numbers of this process by several integers."""
    source = np.random.SeedSequence([abs(each) for each in key])
    seeds = [int(word) for word in source.generate_state(3)]
    random.seed(seeds[0])
    np.random.seed(seeds[1])
    torch.manual_seed(seeds[2])


def resume(config: Config, found: Resumption, seed: int, rank: int) -> None:
    """Have a configuration go on from a checkpoint and from the batch that comes after it.

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
    """The batches of a sampler from some iteration on; from the next epoch on, all of them.

    Args:
        sampler: gives indices.
        batch_size: indices a batch.
        batches: configuration of a batch sampler; None cuts what the sampler gives into batches.
        drop_last: whether an incomplete last batch is left out, where `batches` is None.
        epoch: so many whole passes were done.
        iteration: so many batches were done, those of the passes included.
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
        restart_randomness(*self._random)
        yield from batches


class ResumeIterationsHook(Hook):
    """Keeps a loop that counts iterations from loading what was trained on before."""

    def before_train(self, runner: Runner) -> None:
        loop = runner.train_loop
        sampler = loop.dataloader.batch_sampler
        if isinstance(loop, IterBasedTrainLoop) and isinstance(sampler, ResumedBatches):
            loop.dataloader_iterator._epoch = sampler.restarts
            skipped = itertools.repeat(None, loop.iter)
            loop.dataloader_iterator = itertools.chain(skipped, loop.dataloader_iterator)


@FUNCTIONS.register_module()
def seed_worker(worker_id: int, rank: int, iteration: int) -> None:
    """Seed a process that loads images.

    Torch draws what it seeds workers with anew for each epoch; MMEngine's own function would have
    every epoch, and every part of a resumed training, draw the same random numbers again.

    Args:
        worker_id: number of the worker; torch's seed tells it already.
        rank: number of the training process.
        iteration: where this part of the training begins.
    """
    restart_randomness(torch.initial_seed(), rank, iteration)

"""One of several processes that train and score a small classifier; torchrun starts this script."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from spikebench import register_backbone
from spikebench.backbones import FeatureInfo, to_time_first
from spikebench.distributed import launched
from spikebench.neurons import LIF
from spikebench_tasks.classification import loop
from spikebench_tasks.classification.datasets.digits import Digits, DigitsDataModule
from spikebench_tasks.classification.module import ClassificationModule


class WithoutNorms(nn.Module):
    """Two convolutions and a LIF: what it gives for an image does not depend on the others."""

    def __init__(self, time_steps: int = 1) -> None:
        super().__init__()
        self.time_steps = time_steps
        self.feature_info = [FeatureInfo(16, 4)]
        self.stem = nn.Conv2d(3, 16, 4, 4)
        self.lif = LIF()
        self.conv = nn.Conv2d(16, 16, 3, padding=1)
        self.norm: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = to_time_first(x, self.time_steps, 4)
        spikes = self.lif(4 * self.stem(x.flatten(0, 1)).unflatten(0, x.shape[:2]))
        return (8 * self.norm(self.conv(spikes.flatten(0, 1))).unflatten(0, x.shape[:2]),)


@register_backbone
def without_norms(**options: Any) -> WithoutNorms:
    """A backbone for tests."""
    return WithoutNorms(**options)


@register_backbone
def with_norms(**options: Any) -> WithoutNorms:
    """One whose buffers are of the images of a process."""
    backbone = WithoutNorms(**options)
    backbone.norm = nn.BatchNorm2d(16)
    return backbone


class NoteSteps(Callback):
    """Notes losses, statistics of norms, and whether each process has but a part of the weights."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.sharded = False
        self.statistics: list[float] = []

    def on_validation_batch_end(self, trainer: Any, module: Any, *batch: Any) -> None:
        self.statistics.append(sum(float(one.double().sum()) for one in module.buffers()))

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *batch: Any) -> None:
        self.losses.append(float(outputs["loss"]))
        self.sharded = isinstance(module.model, FSDPModule)


def in_a_stock_trainer(checkpoint: Path, processes: int, limit: int | None) -> dict[str, float]:
    """Metrics as Lightning's own Trainer has them, with the samplers that it puts in."""
    module = ClassificationModule.load_from_checkpoint(checkpoint, weights_only=True)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        logger=False,
        enable_progress_bar=False,
    )
    return dict(*trainer.test(module, DigitsDataModule(batch_size=4, limit=limit), verbose=False))


def main(order: Path) -> None:
    run = pickle.loads(order.read_bytes())
    seen: list[int] = []
    read = Digits.__getitem__

    def noting(self: Digits, index: int) -> tuple[Tensor, int]:
        self.augment = None
        seen.append(index)
        return read(self, index)

    Digits.__getitem__ = noting  # type: ignore[method-assign]
    note = NoteSteps()
    make = loop._trainer
    loop._trainer = lambda run, callbacks, **options: make(run, [note, *callbacks], **options)
    with launched() as processes, processes.group():
        checkpoint = loop.train(run)
        trained, seen[:] = list(seen), []
        metrics, _, _, per_class, _ = loop.evaluate(run, checkpoint)
    scored, seen[:] = list(seen), []
    stock = in_a_stock_trainer(checkpoint, processes.count, run.limit)
    rank = processes.rank
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    found = {
        "losses": note.losses,
        "sharded": note.sharded,
        "statistics": note.statistics,
        "trained": trained,
        "scored": scored,
        "stock": stock,
        "scored_by_stock": seen,
        "metrics": metrics,
        "per_class": per_class,
        "weights": sum(float(value.double().abs().sum()) for value in state.values()),
    }
    order.with_name(f"found{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""What a run adds to Lightning's Trainer: seeds by epoch, a stop at NaN, progress, whole files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from spikebench.errors import UserError
from spikebench.progress import Progress
from spikebench.seeding import derived_seed, seed_everything
from spikebench_tasks.divergence import require_finite

_REMEDY = "lower model.optimizer.lr or set trainer.gradient_clip_val"


class WholeFiles(TorchCheckpointIO):
    """Checkpoints that appear under their name only when they are complete.

    Lightning writes to the system's temporary folder and moves the file, which is a copy if that
    folder is on another disk.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        path = Path(path)
        temporary = path.with_name(f".{path.name}.part")
        super().save_checkpoint(checkpoint, temporary, storage_options)
        temporary.replace(path)


class SeedEpochs(Callback):
    """Seeds each epoch from the run's seed and its number, so that a resumed run repeats it."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        seed_everything(derived_seed(self._seed, trainer.current_epoch, trainer.global_rank))


class StopAtNaN(Callback):
    """Aborts on a NaN or infinite loss.

    Losses are read every `log_every_n_steps` steps, as reading one makes a GPU wait. They are read
    as well before validation and before anything is saved, so that no checkpoint is written after
    a NaN; nor is one with weights or running statistics of norms that are not finite. Other buffers
    may hold infinities, such as a causal mask.

    Args:
        folder: holds the run's checkpoints; the message names the last one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._unread: list[tuple[int, float, Tensor]] = []  # step, learning rate, loss

    def on_before_backward(
        self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor
    ) -> None:
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        self._unread.append((trainer.global_step + 1, rate, loss.detach()))
        if len(self._unread) >= read_every(trainer):
            self._read()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._read()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._read()

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._read()
        parameters = {name for name, _ in pl_module.named_parameters()}
        watched = {
            name: value
            for name, value in checkpoint["state_dict"].items()
            if name in parameters or name.endswith((".running_mean", ".running_var"))
        }
        finite = [value.isfinite().all() for value in watched.values()]
        if finite and not torch.stack(finite).all():
            name = next(name for name, good in zip(watched, finite, strict=True) if not good)
            raise UserError(
                f"after step {trainer.global_step} {name} is not finite and nothing was saved; "
                f"{_REMEDY}"
            )

    def _read(self) -> None:
        unread, self._unread = self._unread, []
        if unread and not torch.stack([loss for *_, loss in unread]).isfinite().all():
            for step, rate, loss in unread:
                require_finite(loss, step, rate, _REMEDY, self._folder)


def read_every(trainer: L.Trainer) -> int:
    """Return the number of steps between readings of the loss: it is read at each log."""
    return trainer.log_every_n_steps or 50  # type: ignore[attr-defined]


class PlainProgress(Callback):
    """Progress as plain lines, where stderr is no terminal."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._shown: dict[str, float] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._progress = Progress(self._title, int(trainer.estimated_stepping_batches))
        self._progress.start_at(trainer.global_step)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *batch: Any
    ) -> None:
        step = trainer.global_step
        if step % read_every(trainer) == 0 or step == self._progress.total:
            self._shown = {"loss": float(outputs["loss"])}
        self._progress.update(step, **self._shown)


class ProgressBar(RichProgressBar):
    """Lightning's bar, whose figures are read at each log and not at each step."""

    def __init__(self) -> None:
        super().__init__()
        self._shown: dict[str, Any] = {}

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        if not trainer.training or trainer.global_step % read_every(trainer) == 0:
            self._shown = dict(super().get_metrics(trainer, pl_module))
        return self._shown

"""Aborting a training whose loss diverged."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from spikebench.errors import UserError
from spikebench_tasks.checkpoints import latest_checkpoint


def require_finite(loss: Tensor, step: int, rate: float, remedy: str, folder: Path) -> None:
    """Abort on a NaN or infinite loss.

    Args:
        loss: scalar; reading it synchronises a GPU.
        step: its training step, from 1.
        rate: the learning rate of that step.
        remedy: what to change, for the message.
        folder: the run's, which holds its checkpoints.

    Raises:
        UserError: the loss is NaN or infinite; the message has step, rate and last checkpoint.
    """
    if not torch.isfinite(loss).all():
        raise UserError(
            f"in step {step} the loss is {loss.item()}; the learning rate was {rate:g}; {remedy}; "
            f"the last good checkpoint is {latest_checkpoint(folder) or 'none'}"
        )

"""Stopping a training whose loss is no longer a number."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from spikebench.errors import UserError
from spikebench_tasks.checkpoints import latest_checkpoint


def require_finite(loss: Tensor, step: int, rate: float, remedy: str, folder: Path) -> None:
    """Look at the loss of a step, from 1; the run's folder has the last good checkpoint.

    Raises:
        UserError: the loss is infinite or no number; the message has step and learning rate.
    """
    if not torch.isfinite(loss).all():
        raise UserError(
            f"in step {step} the loss is {loss.item()}; the learning rate was {rate:g}; {remedy}; "
            f"the last good checkpoint is {latest_checkpoint(folder) or 'none'}"
        )

"""Finding the checkpoint that an interrupted run goes on from."""

from __future__ import annotations

import re
from pathlib import Path

from spikebench.weights.loading import WeightsError, read_weights

_NAME = re.compile(r"(?:epoch|iter)[_=](\d+)\.(?:ckpt|pth)")


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder (`epoch=N.ckpt`, `epoch_N.pth`, `iter_N.pth`), oldest first."""
    found = [
        (int(match[1]), path)
        for path in Path(folder).glob("*")
        if (match := _NAME.fullmatch(path.name))
    ]
    return [path for _, path in sorted(found)]


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint in a folder, or None."""
    return next(reversed(checkpoints(folder)), None)


def resumable_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint in a folder, after a look at whether it is whole.

    Raises:
        WeightsError: it is truncated; the message says to delete it.
    """
    checkpoint = latest_checkpoint(folder)
    if checkpoint is not None:
        try:
            read_weights(checkpoint)
        except WeightsError as error:
            raise WeightsError(f"{error}; delete it to go on from what was before it") from error
    return checkpoint

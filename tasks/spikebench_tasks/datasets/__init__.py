"""Data sets that the tasks share, and where data lies on disk."""

import os
from pathlib import Path
from typing import Literal

from spikebench.errors import UserError

Split = Literal["train", "test"]


class DatasetError(UserError):
    """A data set is corrupt, not what it should be, or cannot be written; it says what to do."""


def data_root() -> Path:
    """The folder that holds one folder a data set: $SPIKEBENCH_DATA, or `data` here."""
    return Path(os.environ.get("SPIKEBENCH_DATA", "data"))

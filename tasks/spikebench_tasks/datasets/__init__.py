"""Data sets that the tasks share."""

from typing import Literal

from spikebench.errors import UserError

Split = Literal["train", "test"]


class DatasetError(UserError):
    """A data set is corrupt, not what it should be, or cannot be written; it says what to do."""

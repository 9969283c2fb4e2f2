"""Data sets that need no download, shared by the tasks, and where data lies on disk."""

import os
from pathlib import Path


def data_root() -> Path:
    """The folder that holds one folder a data set: $SPIKEBENCH_DATA, or `data` here."""
    return Path(os.environ.get("SPIKEBENCH_DATA", "data"))

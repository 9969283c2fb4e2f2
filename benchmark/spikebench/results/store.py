"""The store that keeps one JSON file per run, and finding records in folders.

A record is written to a temporary name and then renamed, so that a reader never sees half of one.
"""

from __future__ import annotations

from pathlib import Path

from spikebench.errors import UserError
from spikebench.files import write_atomically
from spikebench.results.record import Record, read_record

RECORD_NAME = "record.json"
SPEED_RECORDS = "speed-*.json"
REPRODUCTIONS = "reproduction-*.json"


class MissingResultsError(UserError, FileNotFoundError):
    """No results were found."""


class ResultStore:
    """The records of one suite: `root/<key>/record.json`."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def folder(self, key: str) -> Path:
        """The folder that holds everything of the run `key`."""
        return self.root / key

    def path(self, key: str) -> Path:
        """Where the record of the run `key` lies."""
        return self.folder(key) / RECORD_NAME

    def get(self, key: str) -> Record | None:
        """The record of the run `key`, or None."""
        path = self.path(key)
        return read_record(path) if path.exists() else None

    def put(self, record: Record) -> Path:
        """Write a record atomically and return its path."""
        path = self.path(record.key)
        write_atomically(path, record.model_dump_json(indent=1) + "\n")
        return path


def find_records(root: Path) -> list[tuple[Path, Record]]:
    """Every record below `root` (or `root` itself, if it is a record file), sorted by path.

    A work folder names its records `record.json`; a folder of published records may name them
    as it likes, one `*.json` file each, but for `speed-*.json` and `reproduction-*.json`: those
    are records of speed and of reproduced tables.

    Raises:
        MissingResultsError: `root` does not exist.
        RecordError: a file is not a whole record.
    """
    root = Path(root)
    if not root.exists():
        raise MissingResultsError(f"no such file or folder: {root}; name one that a run filled")
    if root.is_file():
        paths = [root]
    else:
        paths = sorted(root.rglob(RECORD_NAME)) or sorted(root.glob("*.json"))
    others = (SPEED_RECORDS, REPRODUCTIONS)
    return [(path, read_record(path)) for path in paths if not any(map(path.match, others))]

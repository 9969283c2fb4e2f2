"""Results of passed checks, cached until a file of the data set changes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spikebench.datacheck import SplitCheck
from spikebench.files import cache_root, write_atomically

log = logging.getLogger("spikebench")

_VERSION = 2  # of what is looked for


@dataclass(frozen=True)
class Memory:
    """The cache entry of a data set that passed, and the files it covers.

    Attributes:
        path: a file of its own for every data set as a configuration describes it.
        files: a hash over names, sizes and times of change of annotations, images and label maps.
    """

    path: Path
    files: str

    @classmethod
    def of(cls, described: Any, dataset: Any) -> Memory:
        """Return the cache entry of a data set.

        Args:
            described: what of its configuration matters.
            dataset: built from it, not necessarily initialised.
        """
        text = json.dumps([_VERSION, described], sort_keys=True, default=repr)
        name = hashlib.sha256(text.encode()).hexdigest()[:24]
        files = hashlib.sha256()
        for line in _files(dataset):
            files.update(line.encode(errors="surrogateescape") + b"\0")
        return cls(cache_root() / "data" / f"{name}.json", files.hexdigest())

    def recall(self) -> SplitCheck | None:
        """The result of the passed check; None if there is none or files have changed."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            return SplitCheck(**content["check"]) if content["files"] == self.files else None
        except (OSError, ValueError, KeyError, TypeError):  # there is none, or of another version
            return None

    def keep(self, check: SplitCheck) -> None:
        """Store that the data set passed."""
        content = {"files": self.files, "check": dataclasses.asdict(check)}
        try:
            write_atomically(self.path, json.dumps(content))
        except OSError as error:
            log.warning(
                f"{self.path} cannot be written ({error.strerror}): data are looked at anew"
            )


def _files(dataset: Any) -> Iterator[str]:
    """A line for every existing file that a data set may read."""
    if os.path.exists(dataset.ann_file):
        status = os.stat(dataset.ann_file)
        yield f"{dataset.ann_file} {status.st_size} {status.st_mtime_ns}"
    for folder in sorted(set(dataset.data_prefix.values())):
        if os.path.isdir(folder):
            yield from _below(folder)


def _below(folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda one: one.name):
            if entry.is_dir():
                yield from _below(entry.path)
                continue
            followed = entry.stat(follow_symlinks=not entry.is_symlink() or entry.is_file())
            yield f"{entry.path} {followed.st_size} {followed.st_mtime_ns}"

"""Frames of recordings on disk, so that each file is decoded once."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spikebench.files import cache_root, replacing

_VERSION = 1  # of how frames are made


def cached_frames(path: Path, described: Mapping[str, Any], make: Callable[[], Tensor]) -> Tensor:
    """What `make` gives for a file, from `~/.cache/spikebench/frames` or $XDG_CACHE_HOME.

    It is looked up by the file's place, size and time of change, and by `described`. Workers and
    processes may build it at once: each writes a whole file, and the last takes its place. Where
    nothing can be written (a full disk, no permission), frames are made anew each time, and a
    warning says so.

    Args:
        path: the recording.
        described: whatever else decides what `make` gives, plain data.
        make: makes frames of any shape, float32.
    """
    stat = path.stat()
    about = [_VERSION, str(path.absolute()), stat.st_size, stat.st_mtime_ns, described]
    name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]
    kept = cache_root() / "frames" / name[:2] / f"{name}.npy"
    try:
        return torch.from_numpy(np.load(kept, allow_pickle=False))
    except (OSError, EOFError, ValueError):  # none, or one that a full disk cut off
        frames = make()
    try:
        with replacing(kept) as temporary, temporary.open("wb") as stream:
            np.save(stream, frames.numpy())
    except OSError as error:
        warnings.warn(
            f"frames cannot be kept in {cache_root() / 'frames'}: {error.strerror}; they are made "
            "anew each time, which is slow; XDG_CACHE_HOME names another place",
            stacklevel=2,
        )
    return frames

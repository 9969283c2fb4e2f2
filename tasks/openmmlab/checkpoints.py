"""Checkpoints of MMEngine: whole or absent, and plain data that loads as weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@register_backend("whole", prefixes=None)
class WholeFileBackend(LocalBackend):
    """Local files that appear under their name only when they are whole."""

    def put(self, obj: bytes | memoryview, filepath: str | Path) -> None:
        """Write to a temporary name beside `filepath`, then rename."""
        path = Path(filepath)
        temporary = path.with_name(f".{path.name}.part")
        super().put(obj, temporary)
        temporary.replace(path)


@HOOKS.register_module()
class PlainCheckpointHook(CheckpointHook):
    """Saves checkpoints that `torch.load(..., weights_only=True)` accepts, whole or not at all.

    MMEngine puts its log buffers, instances of a class of its own, and NumPy scalars into a
    checkpoint. The buffers only smooth the figures of the log, and are left out. The
    checkpoint before the last is kept, unless `max_keep_ckpts` says otherwise.

    Args:
        max_keep_ckpts: how many checkpoints stay on disk.
        **options: those of `CheckpointHook`.
    """

    def __init__(self, max_keep_ckpts: int = 2, **options: Any) -> None:
        super().__init__(
            max_keep_ckpts=max_keep_ckpts, backend_args={"backend": "whole"}, **options
        )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        hub = checkpoint["message_hub"]
        hub["log_scalars"] = {}
        hub["runtime_info"] = {
            key: value.item() if isinstance(value, np.generic) else value
            for key, value in hub["runtime_info"].items()
        }

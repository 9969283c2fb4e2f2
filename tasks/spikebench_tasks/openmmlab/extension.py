"""Makes `mmcv._ext`, the compiled half of mmcv, importable where mmcv-lite lacks it.

Installing spikebench puts `spikebench-mmcv.pth` beside it, which calls `install_ops` when Python
starts: MMDetection's and MMSegmentation's own scripts import mmcv's operators before they have read
a configuration. This module is therefore light; torch is imported with the operators themselves.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

EXTENSION = "mmcv._ext"


def install_ops() -> None:
    """Make `mmcv._ext` importable, on torchvision's kernels where no compiled one is installed.

    It is idempotent and imports nothing of OpenMMLab.

    Example:
        >>> from importlib.util import find_spec
        >>> install_ops()
        >>> find_spec("mmcv._ext") is not None
        True
    """
    if not any(isinstance(finder, OpsFinder) for finder in sys.meta_path):
        sys.meta_path.append(OpsFinder())


class OpsFinder(MetaPathFinder, Loader):
    """Finds and loads the stand-in for `mmcv._ext`, and no other module.

    It stands last in `sys.meta_path`, so that a compiled `mmcv._ext` always wins.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the stand-in's spec where `fullname` is `mmcv._ext`, else None."""
        if fullname != EXTENSION:
            return None
        return ModuleSpec(fullname, self, origin="spikebench_tasks.openmmlab.ops")

    def exec_module(self, module: ModuleType) -> None:
        """Fill the new, empty `module` with the ops."""
        from spikebench_tasks.openmmlab.ops import stand_in

        module.__dict__.update(stand_in())

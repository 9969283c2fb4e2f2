"""Makes `mmcv._ext`, the compiled half of mmcv, importable where mmcv-lite lacks it.

Stock MMDetection and MMSegmentation scripts import mmcv's operators before they read a
configuration, so the import finder has to be there when Python starts: `spikebench-mmcv.pth` calls
`install`. Every Python of the environment pays for this module. It imports nothing but `sys`, and
finds nothing but `mmcv._ext`.
"""

import sys

EXTENSION = "mmcv._ext"
OPS = "spikebench_tasks.openmmlab.ops"


class OpsFinder:
    """Finds and loads the stand-in for `mmcv._ext`, and no other module.

    It stands last in `sys.meta_path`, so a compiled `mmcv._ext` wins. Without spikebench_tasks
    nothing is found, and mmcv reports its missing extension as ever.
    """

    def find_spec(self, fullname, path=None, target=None):
        """Return the stand-in's spec if `fullname` is `mmcv._ext`, else None."""
        if fullname != EXTENSION:
            return None
        from importlib.util import find_spec, spec_from_loader

        if find_spec(OPS.partition(".")[0]) is None:
            return None
        return spec_from_loader(fullname, self, origin=OPS)

    def create_module(self, spec):
        """Leave making the module to Python."""

    def exec_module(self, module):
        """Fill the new, empty `module` with the operators."""
        from importlib import import_module

        module.__dict__.update(import_module(OPS).stand_in())


def install() -> None:
    """Make `mmcv._ext` importable; idempotent.

    Example:
        >>> from importlib.util import find_spec
        >>> install()
        >>> find_spec("mmcv._ext") is not None
        True
    """
    if not any(isinstance(finder, OpsFinder) for finder in sys.meta_path):
        sys.meta_path.append(OpsFinder())

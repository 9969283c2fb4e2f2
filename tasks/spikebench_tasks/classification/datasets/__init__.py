"""The data sets of classification: one file each, found by its place in this folder.

Another package adds one by registering a `DataModule` in `spikebench.registry.DATASETS`, through
the entry-point group `spikebench.datasets`.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Any, cast

from spikebench.registry import DATASETS
from spikebench_tasks.classification.datamodule import DataModule
from spikebench_tasks.classification.options import accepted_arguments, require_known

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


def build_data_module(
    name: str, limit: int | None = None, data_root: Path | None = None, **options: Any
) -> DataModule:
    """Build the data module of a data set by name; nothing is read from disk yet.

    Args:
        name: as registered.
        limit: use at most this many images of each split.
        data_root: holds one folder per data set; None is $SPIKEBENCH_DATA, else `data`.
        **options: further arguments of the data module.

    Raises:
        UnknownNameError: there is no such data set, or its data module has no such argument.
    """
    module = cast(type[DataModule], DATASETS.get(name))
    require_known(options, accepted_arguments(module), f"data (data set {name!r})")
    data = module(limit=limit, data_root=data_root, **options)
    data.name = name
    return data

"""The data sets of classification, by name."""

from __future__ import annotations

from typing import Any

from spikebench.registry import unknown_name
from spikebench_tasks.classification.data import DataModule, DigitsDataModule, ImageNetDataModule
from spikebench_tasks.classification.event_sets import (
    CIFAR10DVSDataModule,
    DVS128GestureClipsDataModule,
    DVS128GestureDataModule,
    HARDVSDataModule,
    NCaltech101DataModule,
    NMNISTDataModule,
)
from spikebench_tasks.classification.shards import ImageNetShardsDataModule
from spikebench_tasks.classification.small_images import (
    CIFAR10DataModule,
    CIFAR100DataModule,
    TinyImageNetDataModule,
)

_DATA_MODULES: dict[str, type[DataModule]] = {
    module.name: module
    for module in (
        CIFAR10DataModule,
        CIFAR10DVSDataModule,
        CIFAR100DataModule,
        DVS128GestureClipsDataModule,
        DVS128GestureDataModule,
        DigitsDataModule,
        HARDVSDataModule,
        ImageNetDataModule,
        ImageNetShardsDataModule,
        NCaltech101DataModule,
        NMNISTDataModule,
        TinyImageNetDataModule,
    )
}


def build_data_module(name: str, limit: int | None, **options: Any) -> DataModule:
    """Build the data module of a data set by name; nothing is read from disk yet.

    Args:
        name: the `name` of one of the classes above.
        limit: use only so many images of each split.
        **options: further arguments of the data module.

    Raises:
        UnknownNameError: there is no such data set.
    """
    if name not in _DATA_MODULES:
        raise unknown_name("classification data set", name, _DATA_MODULES)
    return _DATA_MODULES[name](limit=limit, **options)

"""Checks of the data of a detection or segmentation configuration before training starts."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.registry import DefaultScope

from spikebench.datacheck import SplitCheck, first_errors
from spikebench.task import ConfigError, MissingDataError
from spikebench_tasks.datasets import DatasetError
from spikebench_tasks.openmmlab import registered  # noqa: F401  (operators before mmdet)
from spikebench_tasks.openmmlab.checks.dataset import DataSet, check_dataset
from spikebench_tasks.openmmlab.data import SPLITS, import_custom, leaves, located

log = logging.getLogger("spikebench")

_OTHER_CLASSES = {"backbone", "rpn_head", "semantic_head"}  # parts that count something else


def check_data(
    config: Mapping[str, Any], data_root: Path, cached: bool = False
) -> list[SplitCheck]:
    """Check the data that a configuration trains and tests on.

    Args:
        config: an MMDetection or MMSegmentation configuration; the validation split is checked
            unless it is the test split.
        data_root: the folder that holds one folder per data set.
        cached: whether data sets that passed, and whose files have not changed since, pass again
            without being read.

    Returns:
        What was found, one for each data set, in the order of the splits. Data that are not there
        are an error of their split, as is everything else that is wrong with them.

    Raises:
        ConfigError: `custom_imports` names what cannot be imported, or a loader has no data set.
    """
    import_custom(config)
    config = located(config, data_root)
    with DefaultScope.overwrite_default_scope(config.get("default_scope") or "mmengine"):
        return [check_dataset(one, cached) for one in _data_sets(config, data_root)]


def require_sound_data(config: Mapping[str, Any], data_root: Path) -> None:
    """Check the data of a run before anything is built; log what is left out of them.

    Raises:
        MissingDataError: data are not there.
        DatasetError: something is wrong with them; the line is that of the first error.
    """
    checks = check_data(config, data_root, cached=True)
    for one in checks:
        if one.missing:
            raise MissingDataError(one.errors[0])
    errors, more = first_errors(checks, 1)
    if errors:
        others = f" (and {more} more; `spikebench check-data CONFIG` lists them)" if more else ""
        raise DatasetError(errors[0] + others)
    for one in checks:
        if one.skips:
            log.info(f"{one.split} data: {one.skipped}")


def _data_sets(config: Mapping[str, Any], data_root: Path) -> Iterator[DataSet]:
    heads = dict(_heads(config.get("model") or {}))
    for split in SPLITS:
        loader = config.get(f"{split}_dataloader")
        if not loader or (split == "val" and _same_as_test(config)):
            continue
        given = config.get(f"{split}_evaluator") or []
        key = f"{split}_evaluator"
        evaluators = {key: given} if isinstance(given, Mapping) else dict(_numbered(given, key))
        if "dataset" not in loader:
            raise ConfigError(f"{split}_dataloader has no dataset; it says {sorted(loader)}")
        found = list(leaves(loader["dataset"], f"{split}_dataloader.dataset"))
        for index, (place, described) in enumerate(found):
            name = split if len(found) == 1 else f"{split} {index + 1}"
            yield DataSet(name, place, described, split == "train", heads, evaluators, data_root)


def _numbered(items: Any, key: str) -> Iterator[tuple[str, Any]]:
    return ((f"{key}.{index}", each) for index, each in enumerate(items))


def _same_as_test(config: Mapping[str, Any]) -> bool:
    test = config.get("test_dataloader") or {}
    return config["val_dataloader"]["dataset"] == test.get("dataset")


def _heads(node: Any, key: str = "model") -> Iterator[tuple[str, int]]:
    """The number of classes of each head, by its place in the configuration."""
    if isinstance(node, list | tuple):
        for name, each in _numbered(node, key):
            yield from _heads(each, name)
    elif isinstance(node, Mapping):
        if isinstance(node.get("num_classes"), int):
            yield f"{key}.num_classes", node["num_classes"]
        for name, each in node.items():
            if name not in _OTHER_CLASSES:
                yield from _heads(each, f"{key}.{name}")

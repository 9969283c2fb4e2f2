"""Shared by all tasks here: where initial weights are named, and which keys are not protocol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from spikebench.task import ConfigPath, Task


class BaseTask(Task):
    """A task whose configurations name initial weights as MMEngine's do.

    They are `load_from`, and `checkpoint` in any `init_cfg`.
    """

    distributed = True
    not_protocol = frozenset(
        {
            "accelerator",
            "cache_dir",
            "data_root",
            "device",
            "devices",
            "launcher",
            "num_workers",
            "persistent_workers",
            "pin_memory",
            "work_dir",
        }
    )

    def initial_weights(self, config: Mapping[str, Any]) -> dict[ConfigPath, str]:
        found = dict(_in_init_cfg(config, ()))
        if isinstance(given := config.get("load_from"), str) and given:
            found[("load_from",)] = given
        return found

    def with_initial_weights(self, config: Mapping[str, Any], weights: Path) -> dict[str, Any]:
        return {**config, "load_from": str(weights)}

    def checkpoints(self, folder: Path) -> list[Path]:
        from spikebench_tasks.checkpoints import checkpoints

        return checkpoints(folder)


def _in_init_cfg(
    node: Any, place: ConfigPath, in_init: bool = False
) -> Iterator[tuple[ConfigPath, str]]:
    if isinstance(node, list | tuple):
        for index, each in enumerate(node):
            yield from _in_init_cfg(each, (*place, index), in_init)
    elif isinstance(node, Mapping):
        given = node.get("checkpoint")
        if in_init and isinstance(given, str) and given and "://" not in given:
            yield (*place, "checkpoint"), given  # MMEngine downloads what has a scheme
        for key, each in node.items():
            yield from _in_init_cfg(each, (*place, key), in_init=key == "init_cfg")

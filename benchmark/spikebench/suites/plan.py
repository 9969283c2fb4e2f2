"""The plan: a suite becomes a list of runs, each with a key of what decides its result."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spikebench.files import data_root as default_data_root
from spikebench.files import sha256
from spikebench.registry import TASKS
from spikebench.shipped import find_config, find_suite
from spikebench.suites.suite import PROFILE_IMAGES, BackboneEntry, Suite, load_suite
from spikebench.task import ConfigError, ConfigPath, Run, Task


def plan(
    path: str | Path,
    work_dir: Path,
    overrides: Sequence[str] = (),
    limit: int | None = None,
    data_root: Path | None = None,
) -> tuple[Suite, list[tuple[Run, Task]]]:
    """List all runs of a suite, each with the task that does it.

    Args:
        path: the suite's YAML file, or the name of one that comes with the package.
        work_dir: runs land in `work_dir/<suite>/<key>`.
        overrides: see `load_suite`.
        limit: use only this many images of each split.
        data_root: the folder that holds one folder per data set; None takes the default of
            `spikebench.files.data_root`.

    Raises:
        ConfigError: the suite or a configuration is wrong, or a file of initial weights is missing.
        UnknownNameError: a key, task, backbone or override is unknown.
    """
    path = find_suite(path)
    suite, overrides_by_task = load_suite(path, overrides)
    runs = []
    for entry in suite.tasks:
        task: Task = TASKS.get(entry.task)()
        config_path = find_config(entry.config, beside=path.parent)
        own = None if entry.backbone is None else [BackboneEntry(name=entry.backbone)]
        for backbone in own or suite.backbones:
            config = task.resolve(
                config_path,
                backbone.name,
                backbone.arguments,
                overrides_by_task.get(entry.task, []),
            )
            for seed in entry.seeds or suite.seeds:
                run = _new_run(
                    task,
                    config_path,
                    config,
                    suite=suite.name,
                    task_name=entry.task,
                    backbone=backbone.name,
                    seed=seed,
                    limit=limit,
                    profile_images=suite.profile_images,
                    work_dir=work_dir,
                    data_root=data_root,
                )
                runs.append((run, task))
    return suite, runs


def plan_evaluation(
    config_path: str | Path,
    weights: Path,
    work_dir: Path,
    *,
    task_name: str,
    backbone: str | None = None,
    overrides: Sequence[str] = (),
    image_size: int | None = None,
    limit: int | None = None,
    data_root: Path | None = None,
) -> tuple[Run, Task]:
    """Plan the run that scores given weights under a configuration.

    Args:
        config_path: a configuration of the task, or the name of one that comes with the package.
        weights: a file of weights; it enters the key by its SHA-256.
        work_dir: the run lands in `work_dir/evaluate/<key>`.
        task_name: registered name.
        backbone: registered name; None takes the one that the configuration names.
        overrides: `key.path=value` of the configuration.
        image_size: pixels per side; None takes the configuration's.
        limit: use only this many images.
        data_root: as for `plan`.

    Raises:
        ConfigError: the configuration is wrong, or the file of weights is missing.
        UnknownNameError: the task, the backbone or a key is unknown.
    """
    config_path = find_config(config_path)
    task: Task = TASKS.get(task_name)()
    config = task.for_scoring(task.resolve(config_path, backbone, {}, overrides))
    if not weights.is_file():
        raise ConfigError(f"no such file of weights: {weights}")
    config = task.with_initial_weights(config, weights)
    try:
        if image_size is not None:
            config = task.with_image_size(config, image_size)
        named = backbone or task.backbone_of(config)
    except ConfigError as error:
        raise ConfigError(f"{config_path}: {error}") from None
    run = _new_run(
        task,
        config_path,
        config,
        suite="evaluate",
        task_name=task_name,
        backbone=named,
        limit=limit,
        work_dir=work_dir,
        data_root=data_root,
    )
    return run, task


def _new_run(
    task: Task,
    config_path: Path,
    config: dict[str, Any],
    *,
    suite: str,
    task_name: str,
    backbone: str,
    work_dir: Path,
    data_root: Path | None,
    seed: int = 0,
    limit: int | None = None,
    profile_images: int = PROFILE_IMAGES,
) -> Run:
    """A run, its key made of what decides its result."""
    try:
        weighed = _with_digests(task, config, lambda _, digest: digest)
    except ConfigError as error:
        raise ConfigError(f"{config_path}: {error}") from None
    identity = {
        "task": task_name,
        "backbone": backbone,
        "protocol": config_path.stem,
        "seed": seed,
        "limit": limit,
        "profile_images": profile_images,
        "config": _without(weighed, task.not_protocol),
    }
    try:
        text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    except TypeError as error:
        raise ConfigError(f"{config_path} is not plain data: {error}") from None
    key = hashlib.sha256(text.encode()).hexdigest()[:12]
    name = f"{task_name}-{backbone}-{config_path.stem}-seed{seed}-{key}"
    root = work_dir / suite
    return Run(
        key=key,
        suite=suite,
        backbone=backbone,
        task=task_name,
        protocol=config_path.stem,
        seed=seed,
        config=config,
        folder=root / key,
        tensorboard=root / "tensorboard" / name,
        limit=limit,
        data_root=default_data_root(data_root),
    )


def recorded_config(task: Task, config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as records hold it: initial weights by file name and SHA-256.

    Raises:
        ConfigError: a file of initial weights is missing.
    """
    return _with_digests(task, config, lambda name, digest: {"file": name, "sha256": digest})


def _without(config: Any, keys: frozenset[str]) -> Any:
    """The configuration without some keys, at any depth."""
    if isinstance(config, dict):
        return {key: _without(value, keys) for key, value in config.items() if key not in keys}
    if isinstance(config, list | tuple):
        return [_without(value, keys) for value in config]
    return config


def _with_digests(
    task: Task, config: Mapping[str, Any], describe: Callable[[str, str], Any]
) -> dict[str, Any]:
    """The configuration with `describe(name, digest)` in place of each file of initial weights."""
    described = copy.deepcopy(dict(config))
    for place, file in task.initial_weights(config).items():
        path = Path(file)
        if not path.is_file():
            raise ConfigError(f"{'.'.join(map(str, place))} is {file!r}; there is no such file")
        stat = path.stat()
        digest = _digest(path.absolute(), stat.st_mtime_ns, stat.st_size)
        _put(described, place, describe(path.name, digest))
    return described


def _put(config: Any, place: ConfigPath, value: Any) -> None:
    *outer, last = place
    for step in outer:
        if isinstance(config[step], tuple):
            config[step] = list(config[step])
        config = config[step]
    config[last] = value


@functools.lru_cache
def _digest(path: Path, changed: int, size: int) -> str:
    """The SHA-256 of a file, read again only if it changed."""
    return sha256(path)

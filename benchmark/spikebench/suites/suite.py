"""What to run: a suite is data, and becomes a list of runs (backbones x tasks x seeds)."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from spikebench.backbones import list_backbones
from spikebench.files import sha256
from spikebench.registry import TASKS, unknown_name
from spikebench.strict_yaml import StrictLoader
from spikebench.suites.overrides import apply_override, split_override
from spikebench.task import ConfigError, Run, Task

# Where a run computes and where its files lie does not change what is measured.
_NOT_PROTOCOL = frozenset(
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


PROFILE_IMAGES = 64  # that operations are counted on where a suite does not say


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BackboneEntry(_Strict):
    """A registered backbone and its arguments; a plain name stands for one without arguments."""

    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)


class TaskEntry(_Strict):
    """A task and its configuration file, relative to the suite's file.

    Attributes:
        backbone: what the backbone is called that the configuration builds itself, such as an ANN
            baseline's; None where the suite's backbones are put in.
        seeds: other ones than the suite's.
    """

    task: str
    config: Path
    backbone: str | None = Field(default=None, min_length=1)
    seeds: list[int] | None = Field(default=None, min_length=1)


class Suite(_Strict):
    """The runs of a benchmark: every backbone on every task with every seed.

    Attributes:
        name: also the name of the folder below the work directory.
        profile_images: operations are counted on so many test images.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    backbones: list[BackboneEntry] = Field(default=[])
    tasks: list[TaskEntry] = Field(min_length=1)
    seeds: list[int] = Field(default=[0], min_length=1)
    profile_images: int = Field(default=PROFILE_IMAGES, ge=1)

    @field_validator("tasks")
    @classmethod
    def _each_has_a_backbone(cls, tasks: list[TaskEntry], info: ValidationInfo) -> list[TaskEntry]:
        if not info.data.get("backbones", True) and any(one.backbone is None for one in tasks):
            raise ValueError("some have no backbone of their own, and the suite names none")
        return tasks

    @field_validator("backbones", mode="before")
    @classmethod
    def _names_alone(cls, entries: Any) -> Any:
        if not isinstance(entries, list):
            return entries
        return [{"name": entry} if isinstance(entry, str) else entry for entry in entries]


def load_suite(path: Path, overrides: Sequence[str] = ()) -> tuple[Suite, dict[str, list[str]]]:
    """Read a suite and sort out overrides.

    Args:
        path: a YAML file.
        overrides: `key=value` for the suite itself, `<task>.key.path=value` for the configurations
            of a task of the suite.

    Returns:
        The suite, and for each of its tasks the overrides of its configurations.

    Raises:
        ConfigError: the file is missing, no YAML, or no suite; the message says where.
        UnknownNameError: a key, task, backbone or override is unknown; near ones are suggested.
    """
    if not path.is_file():
        raise ConfigError(f"no such suite: {path}")
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), StrictLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = " ".join(str(error).split())
        raise ConfigError(f"{path} is not YAML: {line}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds a {type(data).__name__}; expected the keys of a suite")
    known = list(Suite.model_fields)
    for key in data:
        if key not in known:
            raise unknown_name(f"key of {path.name}", str(key), known)
    entries = data.get("tasks")
    named = [entry.get("task") for entry in entries or () if isinstance(entry, dict)]
    of_tasks: dict[str, list[str]] = {name: [] for name in named if isinstance(name, str)}
    for override in overrides:
        name, value = split_override(override)
        first, dot, rest = name.removeprefix("+").partition(".")
        if dot and first in of_tasks:
            plus = "+" if name.startswith("+") else ""
            of_tasks[first].append(f"{plus}{rest}={value}")
        elif first in known:
            data.setdefault(first, None)
            apply_override(data, override, path.name)
        else:
            raise unknown_name("override", name, [*known, *(f"{task}.{rest}" for task in of_tasks)])
    try:
        suite = Suite.model_validate(data)
    except ValidationError as error:
        first_error = error.errors()[0]
        where = ".".join(str(part) for part in first_error["loc"])
        raise ConfigError(f"{path}: {where}: {first_error['msg']}") from None
    known_backbones = list_backbones()
    for entry in suite.backbones:
        if entry.name not in known_backbones:
            raise unknown_name("backbone", entry.name, known_backbones)
    return suite, of_tasks


def plan(
    path: Path, work_dir: Path, overrides: Sequence[str] = (), limit: int | None = None
) -> tuple[Suite, list[tuple[Run, Task]]]:
    """All runs of a suite, each with the task that does it.

    Args:
        path: the suite's YAML file.
        work_dir: runs land in `work_dir/<suite>/<key>`.
        overrides: see `load_suite`.
        limit: use only so many images of each split.

    Raises:
        ConfigError: the suite or a configuration is wrong, or names initial weights that are not
            there.
        UnknownNameError: a key, task, backbone or override is unknown.
    """
    suite, of_tasks = load_suite(path, overrides)
    runs = []
    for entry in suite.tasks:
        task = TASKS.get(entry.task)()
        config_path = path.parent / entry.config
        own = None if entry.backbone is None else [BackboneEntry(name=entry.backbone)]
        for backbone in own or suite.backbones:
            config = task.resolve(
                config_path, backbone.name, backbone.arguments, of_tasks.get(entry.task, [])
            )
            for seed in entry.seeds or suite.seeds:
                run = _new_run(
                    suite.name,
                    work_dir,
                    entry.task,
                    config_path,
                    config,
                    backbone=backbone.name,
                    seed=seed,
                    limit=limit,
                    profile_images=suite.profile_images,
                )
                runs.append((run, task))
    return suite, runs


def plan_evaluation(
    config_path: Path,
    weights: Path,
    work_dir: Path,
    *,
    task_name: str,
    backbone: str | None = None,
    overrides: Sequence[str] = (),
    limit: int | None = None,
) -> tuple[Run, Task]:
    """The run that scores given weights under a configuration, and the task that does it.

    Args:
        config_path: a configuration of the task.
        weights: a file of weights; it enters the key by its SHA-256.
        work_dir: the run lands in `work_dir/evaluate/<key>`.
        task_name: registered name.
        backbone: registered name; None is the one that the configuration names.
        overrides: `key.path=value` of the configuration.
        limit: use only so many images.

    Raises:
        ConfigError: the configuration is wrong, or there are no such weights.
        UnknownNameError: the task, the backbone or a key is unknown.
    """
    task = TASKS.get(task_name)()
    config = task.for_scoring(task.resolve(config_path, backbone, {}, overrides))
    if not weights.is_file():
        raise ConfigError(f"no such file of weights: {weights}")
    config["load_from"] = str(weights)  # in place of what a training would start from
    run = _new_run(
        "evaluate",
        work_dir,
        task_name,
        config_path,
        config,
        backbone=backbone or _own_backbone(config, config_path),
        limit=limit,
    )
    return run, task


def _own_backbone(config: Mapping[str, Any], path: Path) -> str:
    """What a configuration calls its backbone: its registered name, or an ANN's type."""
    model = config.get("model")
    described = model.get("backbone") if isinstance(model, Mapping) else None
    if isinstance(described, Mapping):
        described = described.get("name") or str(described.get("type")).lower()
    if not isinstance(described, str):
        raise ConfigError(f"{path} names no model.backbone; name one with --backbone")
    return described


def _new_run(
    suite: str,
    work_dir: Path,
    task: str,
    config_path: Path,
    config: dict[str, Any],
    *,
    backbone: str,
    seed: int = 0,
    limit: int | None = None,
    profile_images: int = PROFILE_IMAGES,
) -> Run:
    """A run, its key made of what decides its result."""
    try:
        protocol = _protocol(_with_weights(config, lambda _, digest: digest))
    except ConfigError as error:
        raise ConfigError(f"{config_path}: {error}") from None
    what = {
        "task": task,
        "backbone": backbone,
        "protocol": config_path.stem,
        "seed": seed,
        "limit": limit,
        "profile_images": profile_images,
        "config": protocol,
    }
    try:
        text = json.dumps(what, sort_keys=True, separators=(",", ":"))
    except TypeError as error:
        raise ConfigError(f"{config_path} is not plain data: {error}") from None
    key = hashlib.sha256(text.encode()).hexdigest()[:12]
    name = f"{task}-{backbone}-{config_path.stem}-seed{seed}-{key}"
    root = work_dir / suite
    return Run(
        key=key,
        suite=suite,
        backbone=backbone,
        task=task,
        protocol=config_path.stem,
        seed=seed,
        config=config,
        folder=root / key,
        tensorboard=root / "tensorboard" / name,
        limit=limit,
    )


def _protocol(config: Any) -> Any:
    """The configuration without paths, devices and loader settings."""
    if isinstance(config, dict):
        return {key: _protocol(value) for key, value in config.items() if key not in _NOT_PROTOCOL}
    if isinstance(config, list | tuple):
        return [_protocol(value) for value in config]
    return config


def recorded_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as records hold it: files of initial weights by name and SHA-256.

    Such files are `load_from`, and `checkpoint` in any `init_cfg`.

    Raises:
        ConfigError: there is no such file.
    """
    return _with_weights(config, lambda name, digest: {"file": name, "sha256": digest})


def _with_weights(config: Mapping[str, Any], describe: Callable[[str, str], Any]) -> Any:
    """The configuration with `describe(name, digest)` in place of each file of initial weights."""

    def described(key: str, value: Any) -> Any:
        if not isinstance(value, str) or not value:
            return value
        path = Path(value)
        if not path.is_file():
            raise ConfigError(f"{key} is {value!r}; there is no such file")
        stat = path.stat()
        return describe(path.name, _digest(path.absolute(), stat.st_mtime_ns, stat.st_size))

    def walk(node: Any, initial: bool = False) -> Any:
        if isinstance(node, list | tuple):
            return [walk(value, initial) for value in node]
        if not isinstance(node, dict):
            return node
        source = node.get("checkpoint") if initial else None
        if isinstance(source, str) and "://" not in source:  # what MMEngine downloads is no file
            node = {**node, "checkpoint": described("init_cfg.checkpoint", source)}
        return {key: walk(value, initial=key == "init_cfg") for key, value in node.items()}

    found = walk(dict(config))
    if "load_from" in found:
        found["load_from"] = described("load_from", found["load_from"])
    return found


@functools.lru_cache
def _digest(path: Path, changed: int, size: int) -> str:
    """The SHA-256 of a file, read once for each time that it changed."""
    return sha256(path)

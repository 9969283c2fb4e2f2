"""The suite file: its model, and reading it with overrides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from spikebench.backbones import list_backbones
from spikebench.registry import unknown_name
from spikebench.shipped import find_suite
from spikebench.strict_yaml import StrictLoader
from spikebench.suites.overrides import apply_override, split_override
from spikebench.task import ConfigError

PROFILE_IMAGES = 64
"""How many test images operations are counted on unless a suite says otherwise."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BackboneEntry(_Strict):
    """A registered backbone and its arguments; a plain name stands for one without arguments."""

    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)


class TaskEntry(_Strict):
    """A task and its configuration.

    Attributes:
        config: a file, relative to the suite's, or the name of one that comes with the package.
        backbone: what the backbone is called that the configuration builds itself, such as an ANN
            baseline's; None where the suite's backbones are put in.
        seeds: used instead of the suite's.
    """

    task: str
    config: Path
    backbone: str | None = Field(default=None, min_length=1)
    seeds: list[int] | None = Field(default=None, min_length=1)


class Suite(_Strict):
    """The runs of a benchmark: every backbone on every task with every seed.

    Attributes:
        name: also the name of the folder below the work directory.
        profile_images: how many test images operations are counted on.
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


def load_suite(
    path: str | Path, overrides: Sequence[str] = ()
) -> tuple[Suite, dict[str, list[str]]]:
    """Read a suite and apply overrides.

    Args:
        path: a YAML file, or the name of a suite that comes with the package.
        overrides: `key=value` for the suite itself, `<task>.key.path=value` for the configurations
            of a task of the suite.

    Returns:
        The suite, and for each of its tasks the overrides of its configurations.

    Raises:
        ConfigError: the file is missing, no YAML, or no suite; the message says where.
        UnknownNameError: a key, task, backbone or override is unknown; near ones are suggested.
    """
    path = find_suite(path)
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
    overrides_by_task: dict[str, list[str]] = {name: [] for name in named if isinstance(name, str)}
    for override in overrides:
        name, value = split_override(override)
        first, dot, rest = name.removeprefix("+").partition(".")
        if dot and first in overrides_by_task:
            plus = "+" if name.startswith("+") else ""
            overrides_by_task[first].append(f"{plus}{rest}={value}")
        elif first in known:
            data.setdefault(first, None)
            apply_override(data, override, path.name)
        else:
            raise unknown_name(
                "override", name, [*known, *(f"{task}.{rest}" for task in overrides_by_task)]
            )
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
    return suite, overrides_by_task

"""Configuration files of all tasks: read by MMEngine's Config, overridden in one syntax."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spikebench.suites.overrides import apply_override
from spikebench.task import ConfigError


def load_config(path: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Read a configuration, bases included, and apply overrides.

    Args:
        path: a `.py`, `.yaml` or `.json` file that MMEngine's Config reads.
        overrides: `key.path=value`; lists are indexed by number.

    Returns:
        Plain data: dictionaries, lists, tuples, numbers, strings.

    Raises:
        ConfigError: the file is missing or wrong, or an override names no key of it.
    """
    return overridden(read_config(path), overrides, path.name)


def read_config(path: Path) -> dict[str, Any]:
    """Read a configuration, bases included; arguments and errors as in `load_config`."""
    from mmengine.config import Config

    if not path.is_file():
        raise ConfigError(f"no such configuration: {path}")
    try:
        config = Config.fromfile(path, import_custom_modules=False)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path} cannot be read: {type(error).__name__}: {reason}") from error
    return config.to_dict()


def overridden(config: dict[str, Any], overrides: Sequence[str], name: str) -> dict[str, Any]:
    """Apply overrides to a configuration in place, and return it.

    Raises:
        ConfigError: an override names no key of the configuration `name`.
    """
    for override in overrides:
        apply_override(config, override, name)
    return config

"""Configuration files of all tasks: read by MMEngine's Config, overridden in one syntax."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
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
        with _stock_files_by_path():
            read = Config.fromfile(path, import_custom_modules=False)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path} cannot be read: {type(error).__name__}: {reason}") from error
    return read.to_dict()


@contextmanager
def _stock_files_by_path() -> Iterator[None]:
    """Have MMEngine find stock files such as `mmdet::_base_/default_runtime.py` by their path.

    For each it would reload pkg_resources and read every metafile of the package first, which takes
    most of a second.
    """
    from mmengine.config import Config

    find = Config._get_cfg_path

    def by_path(name: str, inheriting: str) -> tuple[str, str | None]:
        scope, _, stock = name.partition("::")
        spec = find_spec(scope) if stock.startswith("_base_/") else None
        if spec is not None and spec.origin is not None:
            path = Path(spec.origin).parent / ".mim" / "configs" / stock
            if path.is_file():
                return str(path), scope
        return find(name, inheriting)

    Config._get_cfg_path = staticmethod(by_path)
    try:
        yield
    finally:
        Config._get_cfg_path = staticmethod(find)


def overridden(config: dict[str, Any], overrides: Sequence[str], name: str) -> dict[str, Any]:
    """Apply overrides to a configuration in place, and return it.

    Raises:
        ConfigError: an override names no key of the configuration `name`.
    """
    for override in overrides:
        apply_override(config, override, name)
    return config

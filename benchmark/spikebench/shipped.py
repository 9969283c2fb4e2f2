"""Finds what comes with the package: suites, configurations, papers' tables, published records.

A checkout holds them in `configs` and `leaderboards`, a wheel in the same folders inside the
package. Whatever takes a suite or a configuration takes its name or the path of a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from spikebench.registry import unknown_name
from spikebench.task import ConfigError

_PACKAGE = Path(__file__).parent
_PARTS = ("_base_", "suites")  # folders of configs that hold no configuration of a task


def shipped_folder(name: str) -> Path:
    """Return a folder that comes with the package.

    Args:
        name: relative to the root of a checkout, such as `"configs"` or `"leaderboards/papers"`.
    """
    inside = _PACKAGE / name  # in a wheel
    return inside if inside.is_dir() else _PACKAGE.parents[1] / name


def shipped_suites() -> dict[str, Path]:
    """Return the suites that come with the package, by name.

    Example:
        >>> "quickstart" in shipped_suites()
        True
    """
    return {path.stem: path for path in sorted(shipped_folder("configs/suites").glob("*.yaml"))}


def shipped_configs() -> dict[str, Path]:
    """Return the tasks' configurations that come with the package, by `<task>/<name>`.

    Example:
        >>> "classification/imagenet" in shipped_configs()
        True
    """
    paths = sorted(shipped_folder("configs").glob("*/*.py"))
    return {
        f"{path.parent.name}/{path.stem}": path for path in paths if path.parent.name not in _PARTS
    }


def find_suite(given: str | Path) -> Path:
    """Return the file of a suite.

    Args:
        given: a path, or one of `shipped_suites()`.

    Raises:
        ConfigError: there is no such file.
        UnknownNameError: no suite has that name; near ones are suggested.
    """
    return _find("suite", given, shipped_suites(), Path())


def find_config(given: str | Path, beside: Path | None = None) -> Path:
    """Return the file of a configuration.

    Args:
        given: a path, or one of `shipped_configs()`, whose task may be left out where one task
            alone has a configuration of that name.
        beside: the folder that a path is relative to; None is the working directory.

    Raises:
        ConfigError: there is no such file, or several tasks have a configuration of that name.
        UnknownNameError: no configuration has that name; near ones are suggested.

    Example:
        >>> find_config("imagenet") == find_config("classification/imagenet")
        True
    """
    return _find("configuration", given, shipped_configs(), beside or Path())


def _find(kind: str, given: str | Path, shipped: Mapping[str, Path], folder: Path) -> Path:
    path, name = folder / given, str(given)
    if path.is_file():
        return path
    matches = [known for known in shipped if name in (known, known.rpartition("/")[2])]
    if len(matches) == 1:
        return shipped[matches[0]]
    if matches:
        raise ConfigError(f"{kind} {name!r} is one of {', '.join(matches)}; name the folder, too")
    if path.suffix or path.is_absolute() or path.exists():  # meant as a path
        verb = "suites" if kind == "suite" else "configs"
        raise ConfigError(
            f"no such {kind}: {path}; expected a file, or a name of `spikebench list {verb}`"
        )
    known = shipped if "/" in name else {known.rpartition("/")[2] for known in shipped}
    raise unknown_name(kind, name, known)

"""The one extension mechanism: a registry maps names to entries, this suite's and other packages'.

Backbones, tasks, neurons, data sets and estimators each have a registry and an entry-point group.
A package declares its entries in its `pyproject.toml`, in one of two ways:

    [project.entry-points."spikebench.backbones"]
    my_backbone = "my_package:my_backbone"   # one entry; imported when that name is asked for
    my_package = "my_package.zoo"            # a module that registers its entries when imported

This suite declares its own entries in the same way.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar, overload

from spikebench.errors import UserError

T = TypeVar("T")
Entry = TypeVar("Entry")

log = logging.getLogger("spikebench")


class UnknownNameError(UserError, LookupError):
    """A name that nothing was registered under; the message suggests what was meant."""


class CollisionError(UserError, ValueError):
    """Two things have one name; the message names both places."""


class PluginError(UserError, ImportError):
    """Another package declares an entry that cannot be imported; the message names the package."""


def collision(kind: str, name: str, one: str, other: str) -> CollisionError:
    """The error for a name that two places give."""
    return CollisionError(f"{kind} {name!r} is registered twice: {one} and {other}; rename one")


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """The error for a wrong name, with the nearest known names."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known: {', '.join(known)}"
    return UnknownNameError(f"unknown {kind} {name!r}; {hint}")


class Registry(Generic[T]):
    """Maps names to entries.

    Args:
        kind: what is registered, for messages: "backbone", "task".
        group: the entry-point group in which packages declare theirs.

    Example:
        >>> widgets: Registry = Registry("widget", "example.widgets")
        >>> @widgets.register
        ... def wheel():
        ...     return 4
        >>> widgets.names(), widgets.get("wheel")()
        (['wheel'], 4)
    """

    def __init__(self, kind: str, group: str) -> None:
        self.kind = kind
        self.group = group
        self._entries: dict[str, T] = {}
        self._places: dict[str, str] = {}
        self._unread_modules = True
        self._failed: list[str] = []

    @overload
    def register(
        self, entry: Entry, *, name: str | None = None, place: str | None = None
    ) -> Entry: ...

    @overload
    def register(self, *, name: str) -> Callable[[Entry], Entry]: ...

    def register(
        self, entry: Any = None, *, name: str | None = None, place: str | None = None
    ) -> Any:
        """Register an entry, under its own name or a given one; usable as a decorator.

        Args:
            entry: a function, a class or an object.
            name: what it is found by.
            place: where it comes from, such as a file; by default the module and name of its
                definition.

        Raises:
            CollisionError: the name is taken by something else; both places are named.
        """
        if entry is None:
            return lambda decorated: self.register(decorated, name=name, place=place)
        self._add(name or entry.__name__, entry, place)
        return entry

    def _add(self, name: str, entry: T, place: str | None = None) -> None:
        place = place or _place(entry)
        taken = self._entries.get(name)
        # a definition that is imported again replaces itself
        again = self._places.get(name) == place if _is_definition(entry) else taken == entry
        if taken is not None and taken is not entry and not again:
            raise collision(self.kind, name, self._places[name], place)
        self._entries[name] = entry
        self._places[name] = place

    def place(self, name: str) -> str:
        """Where the entry called `name` comes from, for messages about it."""
        self.get(name)
        return self._places[name]

    @cached_property
    def _points(self) -> dict[str, list[EntryPoint]]:
        """Entry points of one entry each, by name; more than one for a name is a collision."""
        points: dict[str, list[EntryPoint]] = {}
        for point in entry_points(group=self.group):
            if point.attr:
                points.setdefault(point.name, []).append(point)
        return points

    def _read_modules(self) -> None:
        """Import the modules that register entries; one that fails is logged and left out."""
        if not self._unread_modules:
            return
        self._unread_modules = False
        for point in entry_points(group=self.group):
            if not point.attr:
                try:
                    point.load()
                except CollisionError:
                    raise
                except Exception as error:
                    self._failed.append(_import_failure(f"{self.kind}s", point, error))
                    log.warning("%s", self._failed[-1])

    def get(self, name: str) -> T:
        """Return the entry called `name`, importing the package that declares it if need be.

        Raises:
            UnknownNameError: nothing has that name; the message suggests near ones.
            PluginError: the package that declares it cannot be imported.
            CollisionError: several packages brought that name; all are named.
        """
        if name in self._points:
            self._read_modules()  # one of them may have the same name
            entry = self._load(name)
            point = self._points[name][0]
            self._add(name, entry, None if _is_definition(entry) else _declared(point))
        if name not in self._entries:
            self._read_modules()
        if name not in self._entries and self._failed:
            raise PluginError(f"unknown {self.kind} {name!r}; {'; '.join(self._failed)}")
        if name not in self._entries:
            raise unknown_name(self.kind, name, self.names())
        return self._entries[name]

    def _load(self, name: str) -> T:
        point, *others = self._points[name]
        if others:
            places = " and ".join(_declared(each) for each in (point, *others))
            raise CollisionError(
                f"{self.kind} {name!r} is declared twice: by {places}; uninstall all but one"
            )
        try:
            return point.load()
        except Exception as error:
            raise PluginError(_import_failure(f"{self.kind} {name!r}", point, error)) from error

    def names(self, pattern: str = "*") -> list[str]:
        """Return all names that match a shell pattern, sorted.

        Modules that register entries are imported; packages that declare single ones are not.

        Args:
            pattern: such as `"sew_*"`.
        """
        self._read_modules()
        return sorted(
            name for name in {*self._entries, *self._points} if fnmatchcase(name, pattern)
        )


def _is_definition(entry: Any) -> bool:
    """Whether an entry is a function or a class, which knows where it was defined."""
    return hasattr(entry, "__qualname__")


def _place(entry: Any) -> str:
    described = entry if _is_definition(entry) else type(entry)
    return f"{described.__module__}.{described.__qualname__}"


def _declared(point: EntryPoint) -> str:
    return f"package {point.dist.name!r} ({point.value})" if point.dist else point.value


def _import_failure(what: str, point: EntryPoint, error: Exception) -> str:
    return f"{what} of {_declared(point)} cannot be imported: {type(error).__name__}: {error}"


BACKBONES: Registry[Callable[..., Any]] = Registry("backbone", "spikebench.backbones")
TASKS: Registry[Callable[..., Any]] = Registry("task", "spikebench.tasks")
NEURONS: Registry[Callable[..., Any]] = Registry("neuron", "spikebench.neurons")
DATASETS: Registry[Callable[..., Any]] = Registry("data set", "spikebench.datasets")
ESTIMATORS: Registry[Any] = Registry("estimator", "spikebench.estimators")

"""One small registry: names to factories, its own and those of other installed packages.

Another package brings an entry of its own through an entry-point group; it is found by name without
being imported, and imported only when that name is asked for.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from spikebench.errors import UserError

T = TypeVar("T", bound=Callable[..., Any])


class UnknownNameError(UserError, LookupError):
    """A name that nothing was registered under; the message suggests what was meant."""


class CollisionError(UserError, ValueError):
    """Two things have one name; the message names both places."""


class PluginError(UserError, ImportError):
    """Another package declares an entry that cannot be imported; the message names the package."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """The error for a wrong name, with the nearest known names."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known: {', '.join(known)}"
    return UnknownNameError(f"unknown {kind} {name!r}; {hint}")


class Registry(Generic[T]):
    """Names to factories.

    Args:
        kind: what is registered, for messages: "backbone", "task".
        group: the entry-point group in which other packages declare theirs.
    """

    def __init__(self, kind: str, group: str) -> None:
        self.kind = kind
        self.group = group
        self._entries: dict[str, T] = {}

    def register(self, entry: T) -> T:
        """Register a function or class under its own name; usable as a decorator.

        Raises:
            CollisionError: the name is taken by something else; both places are named.
        """
        self._add(entry.__name__, entry)
        return entry

    def _add(self, name: str, entry: T) -> None:
        taken = self._entries.get(name)
        if taken is not None and _place(taken) != _place(entry):
            raise CollisionError(
                f"{self.kind} {name!r} is registered twice: {_place(taken)} and {_place(entry)}; "
                "rename one"
            )
        self._entries[name] = entry

    @cached_property
    def _plugins(self) -> dict[str, list[EntryPoint]]:
        """Entry points by name; more than one for a name is a collision."""
        points: dict[str, list[EntryPoint]] = {}
        for point in entry_points(group=self.group):
            points.setdefault(point.name, []).append(point)
        return points

    def get(self, name: str) -> T:
        """The entry registered under `name`, importing the package that declares it if need be.

        Raises:
            UnknownNameError: nothing has that name; the message suggests near ones.
            PluginError: the package that declares it cannot be imported.
            CollisionError: several packages brought that name; all are named.
        """
        if name in self._plugins:
            self._add(name, self._load(name))
        if name not in self._entries:
            raise unknown_name(self.kind, name, self.names())
        return self._entries[name]

    def _load(self, name: str) -> T:
        point, *others = self._plugins[name]
        if others:
            places = " and ".join(_declared(each) for each in (point, *others))
            raise CollisionError(
                f"{self.kind} {name!r} is declared twice: by {places}; uninstall all but one"
            )
        try:
            return point.load()
        except Exception as error:
            raise PluginError(
                f"{self.kind} {name!r} of {_declared(point)} cannot be imported: "
                f"{type(error).__name__}: {error}"
            ) from error

    def names(self) -> list[str]:
        """All names, sorted; nothing is imported for it."""
        return sorted({*self._entries, *self._plugins})


def _place(entry: Any) -> str:
    return f"{entry.__module__}.{entry.__qualname__}"


def _declared(point: EntryPoint) -> str:
    return f"package {point.dist.name!r} ({point.value})" if point.dist else point.value


BACKBONES: Registry[Callable[..., Any]] = Registry("backbone", "spikebench.backbones")
TASKS: Registry[Callable[..., Any]] = Registry("task", "spikebench.tasks")

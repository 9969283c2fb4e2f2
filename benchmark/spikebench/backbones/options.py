"""The options of backbones, read from their signatures and docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from types import NoneType, SimpleNamespace, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from spikebench.registry import BACKBONES, Registry


class Option(NamedTuple):
    """An argument of a backbone, as text; a field is empty if its author has not documented it."""

    name: str
    values: str
    default: str
    about: str


def backbone_options(name: str) -> list[Option]:
    """The arguments of a registered backbone.

    They are those of its function and, where that passes on `**keywords`, those of the class that
    the function is annotated to return; the function's own defaults count. Values come from
    annotations (`Literal`, or `Annotated[str, names]` with a registry or a mapping of the names),
    and what an option does from Google-style docstrings.

    Args:
        name: as in `list_backbones()`.

    Raises:
        UnknownNameError: nothing has that name; the message suggests near ones.
    """
    factory = BACKBONES.get(name)
    own = _options(factory)
    returned = _hints(factory).get("return")
    passes_on = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(factory).parameters.values())
    if not (passes_on and isinstance(returned, type)) or returned is NoneType:
        return list(own.values())
    inherited = _options(returned)
    for option in own.values():
        known = inherited.get(option.name, option)
        inherited[option.name] = option._replace(
            values=option.values or known.values, about=option.about or known.about
        )
    return list(inherited.values())


def input_channels(name: str) -> int:
    """Channels of a backbone's input: the default of its `in_channels`, else 3 (images)."""
    defaults = {option.name: option.default for option in backbone_options(name)}
    return int(defaults.get("in_channels") or 3)


def option_tables(names: Iterable[str]) -> list[tuple[list[str], list[Option]]]:
    """The options of backbones, grouped: backbones that differ only in defaults share a table.

    Args:
        names: of registered backbones.

    Returns:
        Pairs of names and the options that they share.
    """
    tables: dict[tuple, tuple[list[str], list[Option]]] = {}
    for name in names:
        options = backbone_options(name)
        key = tuple(option._replace(default="") for option in options)
        sharing, shared = tables.setdefault(key, ([], options))
        sharing.append(name)
        shared[:] = [
            old if old.default == new.default else old._replace(default="by backbone")
            for old, new in zip(shared, options, strict=True)
        ]
    return list(tables.values())


def _options(factory: Callable[..., Any]) -> dict[str, Option]:
    docs = (factory, factory.__init__) if isinstance(factory, type) else (factory,)  # type: ignore[misc]
    texts = {k: v for doc in docs for k, v in _arguments(inspect.getdoc(doc) or "").items()}
    hints = _hints(factory)
    return {
        p.name: Option(
            p.name,
            _values(hints.get(p.name, "")),
            "required" if p.default is p.empty else str(p.default),
            texts.get(p.name, ""),
        )
        for p in inspect.signature(factory).parameters.values()
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    }


def _hints(factory: Callable[..., Any]) -> dict[str, Any]:
    """Annotations: types, or their text if a name is only known to type checkers."""
    function: Any = factory.__init__ if isinstance(factory, type) else factory  # type: ignore[misc]
    hints: dict[str, Any] = {}
    for name, written in getattr(function, "__annotations__", {}).items():
        alone = SimpleNamespace(__annotations__={name: written})
        try:
            globals_ = getattr(function, "__globals__", {})
            hints |= get_type_hints(alone, globals_, include_extras=True)
        except (NameError, AttributeError):
            hints[name] = written
    return hints


def _values(hint: Any) -> str:
    if isinstance(hint, str):
        return hint
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return ", ".join(_value(part) for part in parts)


def _value(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return ", ".join(map(str, get_args(hint)))
    if get_origin(hint) is Annotated:
        plain, *notes = get_args(hint)
        names = next((note for note in notes if isinstance(note, Registry | Mapping)), None)
        if names is None:
            return _value(plain)
        return ", ".join(names.names() if isinstance(names, Registry) else names)
    if hint is bool:
        return "True, False"
    if hint is NoneType:
        return "None"
    if get_origin(hint) is Callable:
        return "a function"
    return re.sub(r"\w+\.", "", inspect.formatannotation(hint))


def _arguments(doc: str) -> dict[str, str]:
    """The text on each argument in a Google-style docstring."""
    _, _, section = doc.partition("\nArgs:\n")
    texts: dict[str, str] = {}
    name = indent = ""
    for line in section.splitlines():
        if line and not line.startswith(" "):
            break
        entry = re.match(r"( +)\**(\w+)(?: \(.*?\))?:", line)
        indent = indent or (entry[1] if entry else "")
        if entry and entry[1] == indent:
            name = entry[2]
            line = line[entry.end() :]
        if name:
            texts[name] = f"{texts.get(name, '')} {line.strip()}".strip()
    return texts

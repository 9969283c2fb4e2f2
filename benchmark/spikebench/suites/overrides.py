"""Overrides on the command line: `key.path=value`."""

from __future__ import annotations

import ast
import json
from textwrap import shorten
from typing import Any

import yaml

from spikebench.registry import unknown_name
from spikebench.strict_yaml import StrictLoader
from spikebench.task import ConfigError


def split_override(override: str) -> tuple[str, str]:
    """Split `key.path=value` into path and value.

    Raises:
        ConfigError: there is no equals sign.
    """
    path, equals, value = override.partition("=")
    if not equals or not path:
        raise ConfigError(f"override {override!r}; expected key.path=value")
    return path.strip(), value.strip()


def parse_value(text: str) -> Any:
    """Parse a value: JSON, a Python literal, or YAML in braces; anything else is a string.

    Raises:
        ConfigError: it starts with a brace or a bracket and is none of these.

    Example:
        >>> parse_value("1e-3"), parse_value("[0, 1]"), parse_value("None"), parse_value("sgd")
        (0.001, [0, 1], None, 'sgd')
        >>> parse_value("{neuron: ilif, rates: [1e-3, a]}")
        {'neuron': 'ilif', 'rates': [0.001, 'a']}
    """
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    if text.startswith(("{", "[")):
        try:
            return yaml.load(text, StrictLoader)
        except (yaml.YAMLError, RecursionError) as error:
            reason = getattr(error, "problem", None) or "nested too deeply"
            raise ConfigError(
                f"value {shorten(text, 80)!r} begins as a list or a dictionary and is none: "
                f"{reason}; put it in quotes if it is a string"
            ) from None
    return text


def apply_override(data: Any, override: str, where: str) -> None:
    """Set one value in nested dictionaries and lists, in place.

    Args:
        data: plain data.
        override: `key.path=value`, lists indexed by number. The key must be there already, so
            that a misspelt one is an error; `+key.path=value` adds a new one.
        where: what `data` is called in messages.

    Raises:
        UnknownNameError: a part of the path is not there; the message suggests near ones.
        ConfigError: the override has no value, or leads into something that holds no keys.
    """
    path, text = split_override(override)
    new = path.startswith("+")
    parts = path.removeprefix("+").split(".")
    node = data
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if isinstance(node, list):
            if not part.isdigit() or int(part) >= len(node):
                raise ConfigError(
                    f"{where}: {part!r} in override {path!r}; expected an index below {len(node)}"
                )
            index: Any = int(part)
        elif isinstance(node, dict):
            if part not in node and not (new and last):
                known = [".".join([*parts[:depth], key]) for key in map(str, node)]
                raise unknown_name(f"key of {where}", ".".join(parts[: depth + 1]), known)
            index = part
        else:
            raise ConfigError(
                f"{where}: {'.'.join(parts[:depth])!r} is {node!r} and holds no {part!r}"
            )
        if last:
            node[index] = parse_value(text)
        else:
            node = node[index]

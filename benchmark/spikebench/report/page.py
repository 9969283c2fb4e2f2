"""What the HTML pages share: templates, what a cell is sorted by, records to be read."""

from __future__ import annotations

import json
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from spikebench.report.cells import AnnotatedValue, Cell, RatioRange, SeedValues
from spikebench.report.columns import Column

LINE_WIDTH = 100


def page_template(name: str) -> Template:
    """A template of this package; what it is given is escaped."""
    environment = Environment(
        loader=PackageLoader("spikebench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def sort_value(column: Column, cell: Cell) -> str:
    """What a cell is sorted by, at full precision; empty where a figure is missing."""
    if isinstance(cell, RatioRange):
        return repr(cell.mid)
    if isinstance(cell, SeedValues):
        return repr(cell.mean)
    if isinstance(cell, AnnotatedValue):
        return "" if cell.value is None else repr(cell.value)
    return cell or "" if column.kind == "text" else ""


def pretty_json(value: Any, depth: int = 0) -> str:
    """JSON to be read: what fits on a line stays on it, and so does each flat item of a list.

    >>> print(pretty_json({"rows": [{"a": 1}, {"a": 2}], "b": []}, depth=0))
    {"rows": [{"a": 1}, {"a": 2}], "b": []}
    """
    line = json.dumps(value, ensure_ascii=False)
    if len(line) + depth <= LINE_WIDTH or not isinstance(value, dict | list):
        return line
    inner = " " * (depth + 1)
    if isinstance(value, dict):
        items = [
            f"{inner}{json.dumps(key, ensure_ascii=False)}: {pretty_json(item, depth + 1)}"
            for key, item in value.items()
        ]
        left, right = "{", "}"
    else:
        items = [inner + _list_item(item, depth + 1) for item in value]
        left, right = "[", "]"
    return left + "\n" + ",\n".join(items) + "\n" + " " * depth + right


def _list_item(item: Any, depth: int) -> str:
    parts = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
    if any(isinstance(part, dict | list) for part in parts):
        return pretty_json(item, depth)
    return json.dumps(item, ensure_ascii=False)

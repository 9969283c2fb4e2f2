"""A published table beside what was measured of it: one HTML page that needs nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from spikebench.papers.record import ReproducedRow, Reproduction
from spikebench.report.cells import AnnotatedValue
from spikebench.report.columns import Column
from spikebench.report.page import page_template, pretty_json, sort_value
from spikebench.report.paper_tables import details, reproduction_tables
from spikebench.report.render import relative
from spikebench.report.tables import Row, Table


class PageCell(NamedTuple):
    """A table cell as the page shows it.

    Attributes:
        text: without its marks.
        sort: at full precision, empty where there is no figure.
        kind: "text" or "number".
        verified: whether a reported figure was seen in its source; all others are.
        href: where a measured figure leads; empty for all others.
        notes: number and text of the notes that it names.
    """

    text: str
    sort: str
    kind: str
    verified: bool = True
    href: str = ""
    notes: tuple[tuple[int, str], ...] = ()


class PageTable(NamedTuple):
    """A table and its cells, row by row."""

    table: Table
    rows: list[list[PageCell]]


def reproduction_page(path: Path, record: Reproduction, base: Path) -> str:
    """The page of a record; its file's path is shown as seen from `base`."""
    tables = reproduction_tables(path, record)
    return page_template("paper.html.j2").render(
        title=record.title,
        record=record,
        file=relative(path, base),
        tables=[
            PageTable(table, [[_cell(c, row, table) for c in table.columns] for row in table.rows])
            for table in tables
        ],
        rows=[
            (_anchor(row.reported.id), row.reported.model, _about(row), _json(row))
            for row in record.rows
        ],
        rest=pretty_json(record.model_dump(mode="json", exclude={"rows"}, exclude_none=True)),
    )


def _cell(column: Column, row: Row, table: Table) -> PageCell:
    cell = row.cells[column.key]
    shown = PageCell(
        text=column.text(cell),
        sort=sort_value(column, cell),
        kind="text" if column.kind == "text" else "number",
    )
    if not isinstance(cell, AnnotatedValue):
        return shown
    return shown._replace(
        text=cell.text,
        verified=cell.verified,
        href="#" + quote(_anchor(row.id)) if cell.measured else "",
        notes=tuple((number, table.numbered[number - 1]) for number in cell.notes),
    )


def _anchor(row: str) -> str:
    return f"row-{row}"


def _about(row: ReproducedRow) -> str:
    steps = row.reported.time_steps
    parts = [details(row), "" if steps is None else f"T = {steps}"]
    return ", ".join(part for part in parts if part)


def _json(row: ReproducedRow) -> str:
    return pretty_json(row.model_dump(mode="json"))

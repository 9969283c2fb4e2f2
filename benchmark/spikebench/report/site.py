"""The leaderboard: one HTML page that holds all it needs and asks the network for nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from spikebench.energy.estimators import load_estimators
from spikebench.files import write_atomically
from spikebench.report.cells import MISSING, RatioRange, SeedValues
from spikebench.report.columns import Column
from spikebench.report.details import record_details
from spikebench.report.grouping import Group, Selection, Source, select
from spikebench.report.page import page_template, pretty_json, sort_value
from spikebench.report.render import SPREAD_NOTE, failure_text, relative
from spikebench.report.speed import speed_table
from spikebench.report.tables import (
    Row,
    Table,
    leaderboard_table,
    of_task,
    tasks_of,
    with_unique_names,
)
from spikebench.report.write import read_sources
from spikebench.results import Record
from spikebench.speed.record import SpeedRecord

TITLE = "Spiking vision backbones"


@dataclass(frozen=True)
class Link:
    """Where a figure leads: the record of one seed."""

    href: str
    text: str
    hint: str


@dataclass(frozen=True)
class SiteCell:
    """A table cell as the page shows it.

    Attributes:
        text: without the interval.
        sort: at full precision, empty where missing.
        kind: "text" or "number".
        links: to the records of a figure.
        interval: its ends, empty where there is none.
    """

    text: str
    sort: str
    kind: str
    links: tuple[Link, ...] = ()
    interval: str = ""


@dataclass(frozen=True)
class Board:
    """The leaderboard of one task, or of speed.

    Attributes:
        rows: for each row its data set (of speed, its device) and its cells.
        left_out: a line for each run that is not shown, saying why.
        summary: the same in one line.
        plot: accuracy against energy, or None where no row has both.
        undrawn: how many rows the plot has no point of.
        choice: what the rows can be filtered by.
    """

    table: Table
    rows: list[tuple[str, list[SiteCell]]]
    left_out: list[str]
    summary: str
    plot: dict[str, Any] | None = None
    undrawn: int = 0
    choice: str = "data set"


class ShownRecord(NamedTuple):
    """A record as the page shows it: details as tables with their cells, then all of it."""

    anchor: str
    name: str
    about: str
    details: list[tuple[Table, list[list[SiteCell]]]]
    text: str


def build_site(sources: list[Path], out: Path, title: str = TITLE) -> Path:
    """Write the leaderboard of all records below `sources` and return the page's path.

    Args:
        sources: folders of records, or record files.
        out: the folder that gets an `index.html`, or the name of an `.html` file.
        title: the heading of the page.

    Raises:
        FileNotFoundError: a source does not exist.
        RecordError: a file is not a whole record.
        ValueError: there is no record at all.
    """
    from plotly.offline import get_plotlyjs

    page = Path(out) if Path(out).suffix == ".html" else Path(out) / "index.html"
    records, speeds = read_sources([Path(source) for source in sources])
    selection = select(records)
    estimators = _estimators(selection.groups)
    boards = _boards(selection, next(iter(estimators), None))
    if speeds:
        boards.append(_speed_board(speeds))
    rows = [row for board in boards for row in board.table.rows]
    shown = {_anchor(source): source for row in rows for source in row.sources}
    html = page_template("page.html.j2").render(
        title=title,
        boards=boards,
        estimators=estimators,
        spread_note=SPREAD_NOTE,
        has_interval=any(row.has_interval for row in rows),
        speeds=bool(speeds),
        records=[
            ShownRecord(
                anchor,
                source.record.backbone_name,
                _about(source),
                _details(source),
                _pretty_record(source),
            )
            for anchor, source in shown.items()
        ],
        paths={anchor: relative(one.path, page.parent) for anchor, one in shown.items()},
        plots=[board.plot for board in boards if board.plot],
        plotly=get_plotlyjs(),
    )
    write_atomically(page, html)
    return page


def _estimators(groups: Iterable[Group]) -> dict[str, dict[str, Any]]:
    """What is known of the estimators that the records name, in the order of their data files."""
    known = load_estimators()
    named = dict.fromkeys(
        name for group in groups for source in group.sources for name in source.record.energy_mj
    )
    described = {
        name: {"title": estimator.title, "source": estimator.source, **estimator.constants}
        for name, estimator in known.items()
        if name in named
    }
    return described | {name: {} for name in named if name not in known}


def _boards(selection: Selection, estimator: str | None) -> list[Board]:
    tasks = tasks_of(selection)
    tables = with_unique_names([leaderboard_table(task, selection) for task in tasks])
    return [
        _board(table, of_task(task, selection), estimator)
        for task, table in zip(tasks, tables, strict=True)
    ]


def _board(table: Table, chosen: Selection, estimator: str | None) -> Board:
    partial = [s for group in chosen.groups if group.first.partial for s in group.sources]
    left_out = [
        *(failure_text(source) for source in chosen.failures),
        *(_left_out_text("partial, ran on a limited part of its data", s) for s in partial),
        *(_left_out_text("a newer record of the same run exists", s) for s in chosen.superseded),
    ]
    counts = {
        "failed": len(chosen.failures),
        "partial": len(partial),
        "superseded by a newer record": len(chosen.superseded),
    }
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.items() if count)
    runs = "1 run is" if len(left_out) == 1 else f"{len(left_out)} runs are"
    main = next((column for column in table.columns if column.of_metric), None)
    rows = sorted(table.rows, key=lambda row: _best_first(row, main))
    plot, undrawn = _plot(table, rows, main, estimator)
    return Board(
        table=table,
        rows=[(_data(row), [_site_cell(c, row) for c in table.columns]) for row in rows],
        left_out=left_out,
        summary=f"{runs} left out: {reasons}." if left_out else "",
        plot=plot,
        undrawn=undrawn,
    )


def _speed_board(speeds: list[tuple[Path, SpeedRecord]]) -> Board:
    table = speed_table(speeds)
    rows = [
        (str(row.cells["device"]), [_site_cell(c, row) for c in table.columns])
        for row in table.rows
    ]
    return Board(table, rows, left_out=[], summary="", choice="device")


def _left_out_text(reason: str, source: Source) -> str:
    record = source.record
    return f"{record.backbone_name}, {record.protocol}, seed {record.seed}: {reason}"


def _data(row: Row) -> str:
    """The data set and its split; figures of different ones are not to be compared."""
    return f"{row.cells['dataset'] or MISSING} {row.cells['split'] or ''}".strip()


def _best_first(row: Row, main: Column | None) -> tuple[str, float]:
    cell = row.cells[main.key] if main else None
    if main is None or not isinstance(cell, SeedValues):
        return _data(row), math.inf
    return _data(row), -cell.mean if main.higher_is_better else cell.mean


def _site_cell(column: Column, row: Row) -> SiteCell:
    cell = row.cells[column.key]
    return SiteCell(
        text=column.text(cell, brief=True),
        sort=sort_value(column, cell),
        kind="text" if column.kind == "text" else "number",
        interval=column.interval(cell),
        links=_links(row) if column.is_figure and isinstance(cell, SeedValues | RatioRange) else (),
    )


def _links(row: Row) -> tuple[Link, ...]:
    return tuple(
        Link(
            href="#" + quote(_anchor(source)),
            text=str(source.record.seed),
            hint=f"record of {source.record.backbone_name}, seed {source.record.seed}",
        )
        for source in row.sources
    )


def _anchor(source: Source) -> str:
    kind = "speed" if isinstance(source.record, SpeedRecord) else "record"
    return f"{kind}-{source.record.key}"


def _plot(
    table: Table, rows: list[Row], main: Column | None, estimator: str | None
) -> tuple[dict[str, Any] | None, int]:
    """The points of accuracy against energy, one trace per data set, and how many rows lack one."""
    energy = next((c for c in table.columns if c.key == f"energy_mj_{estimator}"), None)
    if main is None or energy is None:
        return None, len(rows)
    traces: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        x, y = row.cells[energy.key], row.cells[main.key]
        # A logarithmic axis has no place for zero.
        if isinstance(x, SeedValues) and isinstance(y, SeedValues) and x.mean > 0:
            traces.setdefault(_data(row), []).append(
                {
                    "x": x.mean,
                    "y": y.mean * main.scale,
                    "spread": (y.deviation or 0) * main.scale,
                    "name": row.cells["backbone"],
                    "details": [
                        f"{main.title}: {main.text(y)}",
                        f"{energy.title}: {energy.text(x)}",
                        f"{row.cells['protocol']}",
                    ],
                    "href": _links(row)[0].href,
                }
            )
    if not traces:
        return None, len(rows)
    plot = {
        "id": f"plot-{table.name}",
        "x": f"energy per image (mJ), {estimator}",
        "y": main.title,
        "traces": [{"name": name, "points": points} for name, points in traces.items()],
    }
    return plot, len(rows) - sum(len(points) for points in traces.values())


def _about(source: Source) -> str:
    """What a record is of, in a few words."""
    record = source.record
    if isinstance(record, SpeedRecord):
        settings = record.settings
        return (
            f"speed, {record.device}, T = {settings.time_steps}, batch {settings.batch_size}, "
            f"{settings.image_size} pixels"
        )
    steps = f"T = {record.backbone.time_steps}, " if record.backbone else ""
    dataset = record.dataset.name if record.dataset else "no data set"
    return f"{record.task}, {dataset}, {record.protocol}, {steps}seed {record.seed}"


def _details(source: Source) -> list[tuple[Table, list[list[SiteCell]]]]:
    tables = record_details(source.record) if isinstance(source.record, Record) else []
    return [
        (table, [[_site_cell(column, row) for column in table.columns] for row in table.rows])
        for table in tables
    ]


def _pretty_record(source: Source) -> str:
    return pretty_json(source.record.model_dump(mode="json", exclude_none=True))

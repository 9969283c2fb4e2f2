"""Tables out of result records: one small structure that every rendering reads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from spikebench.report.cells import Cell, SeedValues
from spikebench.report.columns import (
    COMMON,
    COUNTED_IMAGES,
    NO_METER,
    OPERATIONS,
    TASK,
    Column,
    estimator_columns,
    meter_columns,
)
from spikebench.report.grouping import Selection, Source, select
from spikebench.report.metrics import metric_columns, task_headings
from spikebench.results import Record


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        cells: by column key.
        sources: the records that they come from, by seed; empty where the table has one record.
        partial: whether it comes from limited runs.
        id: what names it within the table's one record.
    """

    cells: dict[str, Cell]
    sources: tuple[Source, ...] = ()
    partial: bool = False
    id: str = ""

    @property
    def has_interval(self) -> bool:
        """Whether a figure of it has its 95 % interval."""
        return any(isinstance(cell, SeedValues) and cell.interval for cell in self.cells.values())

    @property
    def has_spread(self) -> bool:
        """Whether a figure of it is a mean over seeds."""
        return any(
            isinstance(cell, SeedValues) and len(cell.values) > 1 for cell in self.cells.values()
        )


@dataclass(frozen=True)
class Table:
    """A table before it is rendered.

    Attributes:
        name: the stem of its files.
        failures: runs of its tasks that failed; listed below it.
        superseded: older records of runs that a newer record holds; listed below it.
        notes: sentences that stand below it.
        numbered: further ones, which cells name by number, from 1.
        record: the file of the one record that all of it comes from; None where rows have theirs.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    failures: tuple[Source, ...] = ()
    superseded: tuple[Source, ...] = ()
    notes: tuple[str, ...] = ()
    numbered: tuple[str, ...] = ()
    record: Path | None = None

    @property
    def groups(self) -> list[tuple[str, int]]:
        """The headings above the headings and how many columns each spans; empty without any.

        A column without one stands alone, below an empty heading.
        """
        if not any(column.group for column in self.columns):
            return []
        together = groupby(enumerate(self.columns), key=lambda one: one[1].group or one[0])
        spans = [[column for _, column in members] for _, members in together]
        return [(span[0].group, len(span)) for span in spans]


def make_tables(records: Iterable[tuple[Path, Record]]) -> list[Table]:
    """The tables of `records`: one per task, then energy.

    Args:
        records: pairs of a record file's path and its record, as `find_records` gives them.
    """
    selection = select(records)
    groups = selection.groups
    energies = (*estimator_columns(groups), *meter_columns(groups))
    energy = (TASK, *COMMON, COUNTED_IMAGES, *OPERATIONS, *energies)
    return with_unique_names(
        [
            *(task_table(task, selection) for task in tasks_of(selection)),
            _table("energy", "Energy", energy, selection),
        ]
    )


def tasks_of(selection: Selection) -> list[str]:
    """The tasks that the selection holds runs of, by name."""
    found = {group.first.task for group in selection.groups}
    return sorted(found | {source.record.task for source in selection.failures})


def task_table(task: str, selection: Selection) -> Table:
    """The table of one task: its metrics, the most important first."""
    chosen = of_task(task, selection)
    headings = task_headings(task)
    columns = (*COMMON, *metric_columns(task, chosen.groups))
    return _table(headings.name, headings.title, columns, chosen)


def leaderboard_table(task: str, selection: Selection) -> Table:
    """The table of one task, what is compared first; partial runs are left out."""
    chosen = of_task(task, selection)
    headings = task_headings(task)
    groups = tuple(group for group in chosen.groups if not group.first.partial)
    meters = (column for column in meter_columns(groups) if column is not NO_METER)
    figures = (*metric_columns(task, groups), *estimator_columns(groups), *meters)
    common = {column.key: column for column in COMMON}
    first = [common.pop("backbone"), common.pop("dataset"), *figures]
    second = [common.pop("time_steps"), common.pop("parameters"), *OPERATIONS]
    columns = (*first, *second, *common.values())
    whole = Selection(groups, chosen.failures, chosen.superseded)
    return _table(headings.name, headings.title, columns, whole)


def of_task(task: str, selection: Selection) -> Selection:
    """What of the selection belongs to `task`."""
    return Selection(
        tuple(group for group in selection.groups if group.first.task == task),
        tuple(source for source in selection.failures if source.record.task == task),
        tuple(source for source in selection.superseded if source.record.task == task),
    )


def _table(name: str, title: str, columns: tuple[Column, ...], selection: Selection) -> Table:
    rows = tuple(
        Row(
            {column.key: column.of(group) for column in columns}, group.sources, group.first.partial
        )
        for group in selection.groups
    )
    return Table(name, title, columns, rows, selection.failures, selection.superseded)


def with_unique_names(tables: list[Table]) -> list[Table]:
    """Keep a task that is called like another table from writing over its files."""
    taken = {"report"}
    unique = []
    for table in tables:
        name = table.name
        while name in taken:
            name += "_"
        taken.add(name)
        unique.append(replace(table, name=name))
    return unique

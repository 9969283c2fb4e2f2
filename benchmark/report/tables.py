"""Tables out of result records: one small structure that every rendering reads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from benchmark.report.columns import (
    COMMON,
    COUNTED_IMAGES,
    OPERATIONS,
    TASK,
    TASKS,
    Cell,
    Column,
    Figure,
    estimator_columns,
    metric_columns,
    task_spec,
)
from benchmark.report.grouping import Selection, Source, select
from benchmark.results import Record


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        cells: by column key.
        sources: the records that they come from, by seed.
        partial: whether it comes from limited runs.
    """

    cells: dict[str, Cell]
    sources: tuple[Source, ...]
    partial: bool = False

    @property
    def has_spread(self) -> bool:
        """Whether a figure of it is a mean over seeds."""
        return any(
            isinstance(cell, Figure) and len(cell.values) > 1 for cell in self.cells.values()
        )


@dataclass(frozen=True)
class Table:
    """A table before it is rendered.

    Attributes:
        name: the stem of its files.
        failures: runs of its tasks that failed; listed below it.
        superseded: older records of runs that a newer record holds; listed below it.
        notes: sentences that stand below it.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    failures: tuple[Source, ...] = ()
    superseded: tuple[Source, ...] = ()
    notes: tuple[str, ...] = ()


def make_tables(records: Iterable[tuple[Path, Record]]) -> list[Table]:
    """The tables of `records`: accuracy, detection, segmentation, energy, other tasks.

    Args:
        records: pairs of a record file's path and its record, as `find_records` gives them.
    """
    selection = select(records)
    groups = selection.groups
    energy = (TASK, *COMMON, COUNTED_IMAGES, *OPERATIONS, *estimator_columns(groups))
    return with_unique_names(
        [
            *(task_table(task, selection) for task in TASKS),
            _table("energy", "Energy", energy, selection),
            *(task_table(task, selection) for task in tasks_of(selection) if task not in TASKS),
        ]
    )


def tasks_of(selection: Selection) -> list[str]:
    """The tasks that the selection holds runs of: those of `TASKS` first, then by name."""
    found = {group.first.task for group in selection.groups}
    found |= {source.record.task for source in selection.failures}
    return [*(task for task in TASKS if task in found), *sorted(found - set(TASKS))]


def task_table(task: str, selection: Selection) -> Table:
    """The table of one task: its metrics, the preferred ones first."""
    chosen = of_task(task, selection)
    spec = task_spec(task)
    columns = (*COMMON, *metric_columns(task, chosen.groups))
    return _table(spec.name, spec.title, columns, chosen)


def leaderboard_table(task: str, selection: Selection) -> Table:
    """The table of one task, what is compared first; partial runs are left out."""
    chosen = of_task(task, selection)
    groups = tuple(group for group in chosen.groups if not group.first.partial)
    figures = (*metric_columns(task, groups), *estimator_columns(groups))
    common = {column.key: column for column in COMMON}
    first = [common.pop("backbone"), common.pop("dataset"), *figures]
    second = [common.pop("time_steps"), common.pop("parameters"), *OPERATIONS]
    columns = (*first, *second, *common.values())
    whole = Selection(groups, chosen.failures, chosen.superseded)
    return _table(task_spec(task).name, task_spec(task).title, columns, whole)


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

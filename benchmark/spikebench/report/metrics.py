"""The columns of metrics: how a task calls and orders them, or, failing that, its records do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from spikebench.errors import UserError
from spikebench.registry import TASKS
from spikebench.report.cells import Cell, SeedValues
from spikebench.report.columns import OWN_KEYS, Column, measured_values
from spikebench.report.grouping import Group
from spikebench.results import Record
from spikebench.task import MetricSpec, Task


class TaskHeadings(NamedTuple):
    """How the table of a task is called.

    Attributes:
        name: the stem of its files.
        title: its heading.
        metrics: its metrics, the most important first; empty for a task that is not installed.
    """

    name: str
    title: str
    metrics: Mapping[str, MetricSpec] = {}


def task_headings(task: str) -> TaskHeadings:
    """Read titles and order off the task; made of its name if it is not installed."""
    metrics: Mapping[str, MetricSpec] = {}
    title = ""
    try:
        installed: Task = TASKS.get(task)()
        title, metrics = installed.title, installed.metrics
    except UserError:
        pass  # records outlive the packages that made them
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", title.lower() or task)
    return TaskHeadings(name, title or task.replace("_", " ").capitalize(), metrics)


def metric_columns(task: str, groups: Iterable[Group]) -> tuple[Column, ...]:
    """One column per metric and unit that the records hold.

    Metrics are in the order of the task; those that it does not know follow. If no record holds
    any metric, there are those of the task, so that an empty table still says what it is about.
    """
    specs = task_headings(task).metrics
    found: dict[tuple[str, str], bool] = {}
    for group in groups:
        for source in group.sources:
            for name, metric in source.record.metrics.items():
                found.setdefault((name, metric.unit), metric.higher_is_better)
    if not found:
        found = {(name, spec.unit): spec.higher_is_better for name, spec in specs.items()}
    order = {name: place for place, name in enumerate(specs)}
    pairs = sorted(found, key=lambda pair: order.get(pair[0], len(order)))
    # A metric in two units, or one called like another column, has its unit in its key.
    taken = [*(name for name, _ in pairs), *OWN_KEYS]
    return tuple(
        metric_column(
            name if taken.count(name) == 1 else f"{name}_{unit}",
            name,
            unit,
            found[name, unit],
            specs.get(name),
        )
        for name, unit in pairs
    )


def metric_column(
    key: str, name: str, unit: str, higher_is_better: bool, spec: MetricSpec | None
) -> Column:
    """The column of one metric in one unit; a fraction is shown in percent.

    Args:
        key: of the column.
        name: of the metric in records.
        unit: as the records have it, which may not be that of the task any more.
        higher_is_better: likewise.
        spec: how the task shows it; None if it does not know it.
    """
    spec = spec or MetricSpec()

    def value(record: Record) -> float | None:
        metric = record.metrics.get(name)
        return metric.value if metric and metric.unit == unit else None

    values = measured_values(value)

    def cell(group: Group) -> Cell:
        found = values(group)
        if not isinstance(found, SeedValues) or len(group.sources) > 1:
            return found
        return replace(found, interval=group.first.metrics[name].interval)

    is_fraction = unit == "fraction"
    shown_unit = "%" if is_fraction else unit
    title = spec.title or name
    return Column(
        key=key,
        title=f"{title} ({shown_unit})" if shown_unit else title,
        of=cell,
        scale=100.0 if is_fraction else 1.0,
        decimals=spec.decimals if is_fraction else None,
        higher_is_better=higher_is_better,
        of_metric=True,
        in_files_only=spec.detail,
    )

"""What a record holds beside its figures: of each class, after each time step, of each part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from operator import itemgetter

from spikebench.report.cells import Cell, SeedValues
from spikebench.report.columns import COMMON, TASK, Column
from spikebench.report.grouping import Group, Selection
from spikebench.report.metrics import metric_column, task_headings
from spikebench.report.tables import Row, Table
from spikebench.results import Metric, Record

Nested = Mapping[str, Mapping[str, float]]

_ABOUT = {"backbone", "time_steps", "dataset", "split", "protocol"}
_EXPERIMENT = (TASK, *(column for column in COMMON if column.key in _ABOUT))


def detail_tables(selection: Selection) -> list[Table]:
    """A row for each class, time step and part of each experiment; for files, not to be read.

    Args:
        selection: what is shown.

    Returns:
        The figures of classes, unscaled, with the name of the metric in a column of its own; those
        after each time step likewise; and millijoules per image by estimator and part, with their
        share of the whole.
    """
    groups = selection.groups
    return [
        _long("classes", ("metric", "class"), {"value": lambda one: one.per_class}, groups),
        _long("by_time_steps", ("metric", "after"), {"value": _after_steps}, groups),
        _long(
            "energy_parts",
            ("estimator", "part"),
            {"energy_mj": lambda one: one.energy_by_part, "share": _all_shares},
            groups,
        ),
    ]


def record_details(record: Record) -> list[Table]:
    """The same of one record, to be read."""
    specs = task_headings(record.task).metrics
    energies = [
        column
        for estimator, parts in record.energy_by_part.items()
        for column in (
            Column(estimator, f"{estimator} (mJ)", _of(parts)),
            Column(
                f"{estimator}_share",
                f"{estimator} (%)",
                _of(_shares(parts)),
                scale=100.0,
                decimals=1,
            ),
        )
    ]

    def of_metrics(nested: Nested) -> list[Column]:
        columns = []
        for name, figures in nested.items():
            metric = record.metrics.get(name, Metric(value=0))
            shown = metric_column(name, name, metric.unit, metric.higher_is_better, specs.get(name))
            columns.append(replace(shown, of=_of(figures)))
        return columns

    after = _after_steps(record)
    tables = [
        _wide("Energy by part", "part", energies, record.energy_by_part),
        _wide("After time steps of one pass", "after", of_metrics(after), after),
        _wide("By class", "class", of_metrics(record.per_class), record.per_class),
    ]
    return [table for table in tables if table.rows]


def _after_steps(record: Record) -> Nested:
    return {
        name: {str(steps): value for steps, value in enumerate(values, 1)}
        for name, values in record.by_time_steps.items()
    }


def _long(
    name: str,
    heads: tuple[str, str],
    figures: Mapping[str, Callable[[Record], Nested]],
    groups: Iterable[Group],
) -> Table:
    """One table of all that is named by two words; the first of `figures` says which there are."""
    columns = (
        *_EXPERIMENT,
        *(Column(head, head, itemgetter(head), "text") for head in heads),
        *(Column(key, key, itemgetter(key)) for key in figures),
    )
    rows = []
    for group in groups:
        about = {column.key: column.of(group) for column in _EXPERIMENT}
        found = {
            key: [of(source.record) for source in group.sources] for key, of in figures.items()
        }
        first = next(iter(found.values()))
        names = ((one, two) for nested in first for one, inner in nested.items() for two in inner)
        for outer, inner in dict.fromkeys(names):
            cells: dict[str, Cell] = {**about, **dict(zip(heads, (outer, inner), strict=True))}
            for key, seeds in found.items():
                known = [nested[outer][inner] for nested in seeds if inner in nested.get(outer, {})]
                cells[key] = SeedValues(tuple(known), runs=len(seeds)) if known else None
            rows.append(Row(cells, group.sources, group.first.partial))
    return Table(name, name, columns, tuple(rows))


def _wide(title: str, head: str, columns: list[Column], nested: Nested) -> Table:
    """A table of one record: a row for each inner name, a column or two for each outer one."""
    heads = (Column(head, head, lambda name: name, "text"), *columns)
    names = dict.fromkeys(name for inner in nested.values() for name in inner)
    rows = tuple(Row({column.key: column.of(name) for column in heads}) for name in names)
    return Table(head, title, heads, rows)


def _of(figures: Mapping[str, float]) -> Callable[[str], Cell]:
    return lambda name: SeedValues((figures[name],)) if name in figures else None


def _all_shares(record: Record) -> Nested:
    return {estimator: _shares(parts) for estimator, parts in record.energy_by_part.items()}


def _shares(parts: Mapping[str, float]) -> dict[str, float]:
    """Of the whole; none where the whole is nothing."""
    whole = sum(parts.values())
    return {part: energy / whole for part, energy in parts.items()} if whole else {}

"""The columns of a table: which figures of a record are shown, and how."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from spikebench.report.cells import MISSING, AnnotatedValue, Cell, RatioRange, SeedValues
from spikebench.report.grouping import Group
from spikebench.results import Record

NOT_MEASURED = "not measured"
SIGNIFICANT_DIGITS = 4


@dataclass(frozen=True)
class Column:
    """A column: where its cells come from and how they are shown.

    Attributes:
        key: its name in CSV, where figures stand unscaled.
        title: its heading, below that of its group.
        of: the cell of one group of records, or of whatever else the table has a row for.
        kind: a text; a setting of the run (time steps, images); a figure that seeds share
            (parameters); a measured figure, which varies with the seed; or a spread.
        scale: a figure is shown as value * scale.
        decimals: how many decimals to show, or None for four significant digits.
        higher_is_better: which way is up, or None where neither is.
        of_metric: whether it shows a metric of the task.
        group: a heading that it shares with its neighbours; empty where it stands alone.
        in_files_only: whether a terminal does not show it.
    """

    key: str
    title: str
    of: Callable[[Any], Cell]
    kind: Literal["text", "setting", "constant", "measured", "spread"] = "measured"
    scale: float = 1.0
    decimals: int | None = None
    higher_is_better: bool | None = None
    of_metric: bool = False
    group: str = ""
    in_files_only: bool = False

    @property
    def heading(self) -> str:
        """Both headings in one line."""
        return f"{self.group}: {self.title}" if self.group else self.title

    @property
    def is_figure(self) -> bool:
        """Whether its cells are results, each of which leads to its record."""
        return self.kind in ("constant", "measured", "spread")

    def shown(self, figure: SeedValues) -> tuple[str, str | None]:
        """The mean and, of several values, the standard deviation, rounded alike."""
        mean = figure.mean * self.scale
        spec = f".{self.decimals}f" if self.decimals is not None else significant(mean)
        deviation = figure.deviation
        return format(mean, spec), (
            None if deviation is None else format(deviation * self.scale, spec)
        )

    def text(self, cell: Cell, brief: bool = False) -> str:
        """A cell in plain text, such as `77.20 ± 0.30 (3)` of three seeds.

        A single run has its interval in brackets, as in `57.9 (55.1–60.4)`; not where `brief`.
        """
        if cell is None:
            return MISSING
        if isinstance(cell, str):
            return cell
        if isinstance(cell, AnnotatedValue):
            return cell.plain
        if isinstance(cell, RatioRange):
            mid = self.shown(SeedValues((cell.mid,)))[0]
            return f"{mid} ({self._range(min(cell.values), max(cell.values))})"
        mean, deviation = self.shown(cell)
        spread = "" if deviation is None else f" ± {deviation}"
        interval = "" if brief else self.interval(cell)
        brackets = (f" ({part})" for part in (cell.count, interval) if part)
        return f"{mean}{spread}{''.join(brackets)}"

    def interval(self, cell: Cell) -> str:
        """The ends of a figure's interval, such as `55.1–60.4`; empty where it has none."""
        known = isinstance(cell, SeedValues) and cell.interval
        return self._range(*known) if known else ""

    def _range(self, *ends: float) -> str:
        return "–".join(self.shown(SeedValues((end,)))[0] for end in ends)


def significant(value: float) -> str:
    """A format that shows `SIGNIFICANT_DIGITS` of `value`, without an exponent where it can."""
    if not math.isfinite(value) or value == 0:
        return "g"
    exponent = math.floor(math.log10(abs(value)))
    if exponent < -4:
        return f".{SIGNIFICANT_DIGITS - 1}e"
    return f".{max(0, SIGNIFICANT_DIGITS - 1 - exponent)}f"


def estimator_columns(groups: Iterable[Group]) -> tuple[Column, ...]:
    """One column of millijoules per image for each estimator id that the records hold."""
    names = dict.fromkeys(
        name for group in groups for source in group.sources for name in source.record.energy_mj
    )
    return tuple(_estimator_column(name) for name in names)


def _estimator_column(name: str) -> Column:
    return Column(
        key=f"energy_mj_{name}",
        title=f"{name} (mJ)",
        of=measured_values(lambda record: record.energy_mj.get(name)),
        higher_is_better=False,
    )


def meter_columns(groups: Iterable[Group]) -> tuple[Column, ...]:
    """One column of measured millijoules per image for each meter that a record names.

    Where no record names any, one column says so: energy that nobody measured is not zero.
    """
    meters = dict.fromkeys(
        meter
        for group in groups
        for source in group.sources
        for meter in source.record.measured_energy_mj
    )
    return tuple(_meter_column(meter) for meter in meters) or (NO_METER,)


def _meter_column(meter: str) -> Column:
    measured = measured_values(lambda record: record.measured_energy_mj.get(meter))
    return Column(
        key=f"measured_energy_mj_{meter}",
        title=f"measured, {meter} (mJ)",
        of=lambda group: measured(group) or NOT_MEASURED,
        higher_is_better=False,
    )


def measured_values(value: Callable[[Record], float | None]) -> Callable[[Group], Cell]:
    """The cell of a figure that varies with the seed: its value in each record that has it."""

    def cell(group: Group) -> Cell:
        values = [value(source.record) for source in group.sources]
        known = tuple(one for one in values if one is not None)
        return SeedValues(known, runs=len(values)) if known else None

    return cell


def _shared(value: Callable[[Record], float | None]) -> Callable[[Group], Cell]:
    """A figure that seeds share is shown once; should they differ, that is shown."""
    measured = measured_values(value)

    def cell(group: Group) -> Cell:
        figure = measured(group)
        if isinstance(figure, SeedValues) and len(set(figure.values)) == 1:
            return SeedValues(figure.values[:1])
        return figure

    return cell


def _text(value: Callable[[Record], str | None]) -> Callable[[Group], Cell]:
    return lambda group: value(group.first)


def _of_all_views(record: Record, count: str) -> float | None:
    """A count of the operations on an image, of which the record has those on one view."""
    return getattr(record.operations, count) * record.views if record.operations else None


def _protocol(record: Record) -> str:
    """The name of the configuration, and how many views of an image it scores if several."""
    return record.protocol if record.views == 1 else f"{record.protocol}, {record.views} views"


TASK = Column("task", "task", _text(lambda record: record.task), "text")
COMMON = (
    Column("backbone", "backbone", lambda group: group.label, "text"),
    Column(
        "parameters",
        "params (M)",
        _shared(lambda record: record.parameters),
        "constant",
        scale=1e-6,
    ),
    Column(
        "time_steps",
        "T",
        _shared(lambda record: record.backbone.time_steps if record.backbone else None),
        "setting",
        decimals=0,
    ),
    Column(
        "dataset",
        "data set",
        _text(lambda record: record.dataset.name if record.dataset else None),
        "text",
    ),
    Column(
        "split",
        "split",
        _text(lambda record: record.dataset.split if record.dataset else None),
        "text",
    ),
    Column(
        "test_images",
        "images",
        _shared(lambda record: record.dataset.test_samples if record.dataset else None),
        "setting",
        decimals=0,
    ),
    Column("protocol", "protocol", _text(_protocol), "text"),
    Column(
        "seeds", "seeds", lambda group: SeedValues((len(group.sources),)), "setting", decimals=0
    ),
)
COUNTED_IMAGES = Column(
    "counted_images",
    "images counted",
    _shared(lambda record: record.operations.images // record.views if record.operations else None),
    "setting",
    decimals=0,
)
OPERATIONS = (
    Column(
        "dense_macs",
        "MACs per step (G)",
        _shared(lambda record: _of_all_views(record, "dense_macs")),
        "constant",
        scale=1e-9,
    ),
    Column(
        "synaptic_operations",
        "SynOps (G)",
        measured_values(lambda record: _of_all_views(record, "synaptic_operations")),
        scale=1e-9,
    ),
    Column(
        "firing_rate",
        "firing rate (%)",
        measured_values(
            lambda record: record.operations.firing_rate if record.operations else None
        ),
        scale=100.0,
        decimals=2,
    ),
)
NO_METER = Column(
    "measured_energy_mj", "measured (mJ)", lambda group: NOT_MEASURED, higher_is_better=False
)
OWN_KEYS = tuple(column.key for column in (TASK, *COMMON, COUNTED_IMAGES, *OPERATIONS))

"""The columns of a table: which figures of a record are shown, and how."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from spikebench.report.cells import MISSING, Cell, Figure, Marked, Spread
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

    @property
    def heading(self) -> str:
        """Both headings in one line."""
        return f"{self.group}: {self.title}" if self.group else self.title

    @property
    def is_figure(self) -> bool:
        """Whether its cells are results, each of which leads to its record."""
        return self.kind in ("constant", "measured", "spread")

    def shown(self, figure: Figure) -> tuple[str, str | None]:
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
        if isinstance(cell, Marked):
            return cell.plain
        if isinstance(cell, Spread):
            mid = self.shown(Figure((cell.mid,)))[0]
            return f"{mid} ({self._range(min(cell.values), max(cell.values))})"
        mean, deviation = self.shown(cell)
        spread = "" if deviation is None else f" ± {deviation}"
        interval = "" if brief else self.interval(cell)
        brackets = (f" ({part})" for part in (cell.count, interval) if part)
        return f"{mean}{spread}{''.join(brackets)}"

    def interval(self, cell: Cell) -> str:
        """The ends of a figure's interval, such as `55.1–60.4`; empty where it has none."""
        known = isinstance(cell, Figure) and cell.interval
        return self._range(*known) if known else ""

    def _range(self, *ends: float) -> str:
        return "–".join(self.shown(Figure((end,)))[0] for end in ends)


def significant(value: float) -> str:
    """A format that shows `SIGNIFICANT_DIGITS` of `value`, without an exponent where it can."""
    if not math.isfinite(value) or value == 0:
        return "g"
    exponent = math.floor(math.log10(abs(value)))
    if exponent < -4:
        return f".{SIGNIFICANT_DIGITS - 1}e"
    return f".{max(0, SIGNIFICANT_DIGITS - 1 - exponent)}f"


class TaskSpec(NamedTuple):
    """How the table of a task looks; one that has no entry in `TASKS` needs none."""

    name: str
    title: str
    metrics: dict[str, str] = {}
    decimals: int = 2


TASKS = {
    "classification": TaskSpec(
        "accuracy", "Accuracy", {"top1": "top-1", "top5": "top-5", "ece": "calibration error"}
    ),
    "detection": TaskSpec(
        "detection",
        "Detection",
        {
            "box_map": "box AP",
            "box_map50": "box AP50",
            "box_map75": "box AP75",
            "mask_map": "mask AP",
            "mask_map50": "mask AP50",
            "mask_map75": "mask AP75",
            "box_map_small": "box AP S",
            "box_map_medium": "box AP M",
            "box_map_large": "box AP L",
            "mask_map_small": "mask AP S",
            "mask_map_medium": "mask AP M",
            "mask_map_large": "mask AP L",
        },
        decimals=1,
    ),
    "segmentation": TaskSpec(
        "segmentation", "Segmentation", {"miou": "mIoU", "macc": "mAcc", "aacc": "aAcc"}
    ),
}


def task_spec(task: str) -> TaskSpec:
    """The entry of `task`, or one made from its name."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", task)
    return TASKS.get(task) or TaskSpec(name, task.replace("_", " ").capitalize())


def metric_columns(task: str, groups: Iterable[Group]) -> tuple[Column, ...]:
    """One column per metric and unit that the records hold.

    The preferred metrics of the task come first; where no record holds any metric they stand
    alone, so that an empty table still says what it is about.
    """
    spec = task_spec(task)
    found: dict[tuple[str, str], bool] = {}
    for group in groups:
        for source in group.sources:
            for name, metric in source.record.metrics.items():
                found.setdefault((name, metric.unit), metric.higher_is_better)
    if not found:
        found = dict.fromkeys([(name, "fraction") for name in spec.metrics], True)
    preferred = list(spec.metrics)
    pairs = sorted(
        found,
        key=lambda pair: preferred.index(pair[0]) if pair[0] in preferred else len(preferred),
    )
    # A metric in two units, or one called like another column, carries its unit in its key.
    once = [*(name for name, _ in pairs), *OWN_KEYS]
    return tuple(
        metric_column(name if once.count(name) == 1 else f"{name}_{unit}", name, unit, higher, spec)
        for (name, unit), higher in ((pair, found[pair]) for pair in pairs)
    )


def metric_column(key: str, name: str, unit: str, higher_is_better: bool, spec: TaskSpec) -> Column:
    """The column of one metric in one unit; a fraction is shown in percent."""

    def value(record: Record) -> float | None:
        metric = record.metrics.get(name)
        return metric.value if metric and metric.unit == unit else None

    measured = _measured(value)

    def cell(group: Group) -> Cell:
        figure = measured(group)
        if not isinstance(figure, Figure) or len(group.sources) > 1:
            return figure
        return replace(figure, interval=group.first.metrics[name].interval)

    is_fraction = unit == "fraction"
    shown_unit = "%" if is_fraction else unit
    title = spec.metrics.get(name, name)
    return Column(
        key=key,
        title=f"{title} ({shown_unit})" if shown_unit else title,
        of=cell,
        scale=100.0 if is_fraction else 1.0,
        decimals=spec.decimals if is_fraction else None,
        higher_is_better=higher_is_better,
        of_metric=True,
    )


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
        of=_measured(lambda record: record.energy_mj.get(name)),
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
    measured = _measured(lambda record: record.measured_energy_mj.get(meter))
    return Column(
        key=f"measured_energy_mj_{meter}",
        title=f"measured, {meter} (mJ)",
        of=lambda group: measured(group) or NOT_MEASURED,
        higher_is_better=False,
    )


def _measured(value: Callable[[Record], float | None]) -> Callable[[Group], Cell]:
    def cell(group: Group) -> Cell:
        values = [value(source.record) for source in group.sources]
        known = tuple(one for one in values if one is not None)
        return Figure(known, runs=len(values)) if known else None

    return cell


def _shared(value: Callable[[Record], float | None]) -> Callable[[Group], Cell]:
    """A figure that seeds share is shown once; should they differ, that is shown."""
    measured = _measured(value)

    def cell(group: Group) -> Cell:
        figure = measured(group)
        if isinstance(figure, Figure) and len(set(figure.values)) == 1:
            return Figure(figure.values[:1])
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
    Column("seeds", "seeds", lambda group: Figure((len(group.sources),)), "setting", decimals=0),
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
        _measured(lambda record: _of_all_views(record, "synaptic_operations")),
        scale=1e-9,
    ),
    Column(
        "firing_rate",
        "firing rate (%)",
        _measured(lambda record: record.operations.firing_rate if record.operations else None),
        scale=100.0,
        decimals=2,
    ),
)
NO_METER = Column(
    "measured_energy_mj", "measured (mJ)", lambda group: NOT_MEASURED, higher_is_better=False
)
OWN_KEYS = tuple(column.key for column in (TASK, *COMMON, COUNTED_IMAGES, *OPERATIONS))

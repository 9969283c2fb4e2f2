"""A published table beside what was measured of it: the tables, before they are rendered.

A reported figure is shown as it was reported and marked where nobody saw it in its source; a
measured one leads to the record; one that is not measurable here names a note on what is missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from spikebench.energy.estimators import load_estimators
from spikebench.forms import FORMS, Form
from spikebench.papers.record import FigureSpec, Measured, ReproducedRow, Reproduction
from spikebench.report.cells import UNVERIFIED, AnnotatedValue, Cell
from spikebench.report.columns import Column, significant
from spikebench.report.tables import Row, Table

ENERGY = "energy_mj"
RATE = ".3f"
NOT_HERE = "not here"
NOT_MEASURABLE = "not measurable here"
UNVERIFIED_NOTE = f"{UNVERIFIED} and italics: reported, but from memory, unverified."
NOT_HERE_NOTE = f"{NOT_HERE}: {NOT_MEASURABLE}; the numbered note says what is missing."
FORMS_NOTE = (
    "Forms: as coded; batch norms folded into convolutions; re-parameterised (re-param.), where "
    "linear convolutions in a row are fused into one as well."
)
IMPLIED_NOTE = (
    "Implied rate: the mean firing rate at which the model in that form would need the reported "
    "energy. Spikes of 0 and 1 have no rate above 1 or below 0: where that is impossible, the "
    "reported energy cannot be of that form."
)


ANN_NOTE = (
    "ANN: counted with random weights, so only by estimators that charge every "
    "multiply-accumulate, whatever it reads."
)
NO_SOURCE_NOTE = "source not recorded"


class _Notes:
    """Sentences in the order in which cells first name them, from 1."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        return self._numbers.setdefault(text, len(self._numbers) + 1)

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(self._numbers)


def reproduction_tables(path: Path, record: Reproduction) -> list[Table]:
    """Reported beside measured figures; then, where there are any, rates and energies.

    Args:
        path: the record's file, which measured figures lead to.
        record: what it holds.
    """
    tables = [_comparison(path, record)]
    if counted := [row for row in record.rows if row.implied_rates or row.measured_rates]:
        tables.append(_rates(path, record, counted))
    if counted := [row for row in record.rows if row.energy_mj]:
        tables.append(_energies(path, record, counted))
    return tables


def file_stem(record: Reproduction) -> str:
    """What the table's files are called, whatever the table is called."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", record.table)


def _comparison(path: Path, record: Reproduction) -> Table:
    notes = _Notes()
    columns = [
        *_naming_columns(record),
        *(
            column
            for name, spec in figure_specs(record).items()
            for column in _figure_columns(name, spec, record, notes)
        ),
        Column("notes", "notes", lambda row: _about(row, notes), "text"),
    ]
    rows = _rows(columns, record.rows)
    measured = [one for row in record.rows for one in row.measured.values()]
    legend = [
        *([UNVERIFIED_NOTE] if _has_unverified(rows) else []),
        *([NOT_HERE_NOTE] if any(one.value is None for one in measured) else []),
        *_methods(record),
        *_counted_on(record),
        f"Measured on {record.device}, {record.started}"
        + (f", at commit {record.commit}." if record.commit else "."),
    ]
    return Table(
        file_stem(record),
        f"{record.title}: reported and measured",
        tuple(_filled(columns, rows)),
        rows,
        notes=tuple(legend),
        numbered=notes.texts,
        record=path,
    )


def _rates(path: Path, record: Reproduction, counted: list[ReproducedRow]) -> Table:
    columns = [
        *_naming_columns(record),
        Column("energy_mj_reported", "reported", _reported(ENERGY), group="energy (mJ)"),
        *_form_columns("dense_gmacs", "dense MACs per step (G)", significant),
        *(
            Column(f"implied_rates_{form}", about.title, _implied(form), group="implied rate")
            for form, about in FORMS.items()
        ),
        *_form_columns("measured_rates", "measured rate", lambda rate: RATE),
    ]
    rows = _rows(columns, counted)
    legend = [
        *([UNVERIFIED_NOTE] if _has_unverified(rows) else []),
        FORMS_NOTE,
        *([IMPLIED_NOTE] if any(row.implied_rates for row in counted) else []),
        *_counted_on(record),
        *_left_out(record, counted),
    ]
    return Table(
        f"{file_stem(record)}-rates",
        f"{record.title}: firing rates that the reported energies imply",
        tuple(_filled(columns, rows)),
        rows,
        notes=tuple(legend),
        record=path,
    )


def _energies(path: Path, record: Reproduction, counted: list[ReproducedRow]) -> Table:
    estimators = dict.fromkeys(name for row in counted for name in row.energy_mj)
    columns = [
        *_naming_columns(record),
        Column("energy_mj_reported", "reported", _reported(ENERGY), group="energy (mJ)"),
        *(
            Column(
                f"estimated_mj_{name}",
                name,
                _counted("energy_mj", name, significant),
                group="energy (mJ)",
            )
            for name in estimators
        ),
    ]
    rows = _rows(columns, counted)
    known = load_estimators()
    legend = [
        *([UNVERIFIED_NOTE] if _has_unverified(rows) else []),
        *(f"{name}: {known[name].title}." for name in estimators if name in known),
        *([] if all(row.reported.spiking for row in counted) else [ANN_NOTE]),
        *_counted_on(record),
        *_left_out(record, counted),
    ]
    return Table(
        f"{file_stem(record)}-energy",
        f"{record.title}: energies by estimator",
        tuple(_filled(columns, rows)),
        rows,
        notes=tuple(legend),
        record=path,
    )


def _left_out(record: Reproduction, counted: list[ReproducedRow]) -> list[str]:
    rest = len(record.rows) - len(counted)
    if not rest:
        return []
    return [f"Not in this table, for want of a count: {rest} of {len(record.rows)} rows."]


def _rows(columns: list[Column], reproduced: Iterable[ReproducedRow]) -> tuple[Row, ...]:
    return tuple(
        Row({column.key: column.of(row) for column in columns}, id=row.reported.id)
        for row in reproduced
    )


def _filled(columns: list[Column], rows: tuple[Row, ...]) -> Iterator[Column]:
    """The columns that hold anything."""
    return (column for column in columns if any(row.cells[column.key] is not None for row in rows))


def _has_unverified(rows: tuple[Row, ...]) -> bool:
    cells = (cell for row in rows for cell in row.cells.values())
    return any(isinstance(cell, AnnotatedValue) and not cell.verified for cell in cells)


def figure_specs(record: Reproduction) -> dict[str, FigureSpec]:
    """How each figure is shown; what was measured beyond the published columns comes last."""
    names = (name for row in record.rows for name in (*row.reported.figures, *row.measured))
    unnamed = (name for name in names if name not in record.figures)
    return record.figures | {name: FigureSpec(title=name, unit="") for name in unnamed}


def _naming_columns(record: Reproduction) -> list[Column]:
    return [
        Column("model", "model", _model, "text"),
        Column("details", "details", lambda row: details(row) or None, "text"),
        Column("time_steps", "T", _time_steps, "setting"),
    ]


def _model(row: ReproducedRow) -> str:
    return row.reported.model if row.reported.spiking else f"{row.reported.model} (ANN)"


def details(row: ReproducedRow) -> str:
    """What tells a row from another of the same model, in one line; may be empty."""
    return ", ".join(f"{name}: {value}" for name, value in row.reported.details.items())


def _time_steps(row: ReproducedRow) -> Cell:
    steps = row.reported.time_steps
    if steps is None:
        return None
    return AnnotatedValue(str(steps), float(steps) if isinstance(steps, int) else None)


def _figure_columns(
    name: str, spec: FigureSpec, record: Reproduction, notes: _Notes
) -> list[Column]:
    group = f"{spec.title} ({spec.unit})" if spec.unit else spec.title
    alike = len(_reasons(name, record)) == 1

    def measured(row: ReproducedRow) -> Cell:
        found = row.measured.get(name)
        if found is None:
            return None
        if found.value is None:
            return AnnotatedValue(
                NOT_HERE, notes=(notes.number(f"{NOT_MEASURABLE}: {found.reason}"),)
            )
        how = () if alike else (notes.number(f"measured: {found.reason}"),)
        return AnnotatedValue(
            format(found.value, _spec(spec)), found.value, measured=True, notes=how
        )

    def differing(row: ReproducedRow) -> Cell:
        value = difference(row, name)
        if value is None:
            return None
        share = relative_difference(row, name, spec)
        relative_text = "" if share is None else f" ({_signed(share * 100, '.1f')}%)"
        return AnnotatedValue(_signed(value, _spec(spec)) + relative_text, value)

    return [
        Column(f"{name}_reported", "reported", _reported(name), group=group),
        Column(f"{name}_measured", "measured", measured, group=group),
        Column(f"{name}_difference", "difference", differing, group=group),
    ]


def _spec(spec: FigureSpec) -> str:
    return f".{spec.decimals}f"


def _signed(value: float, spec: str) -> str:
    """With its sign, but for what rounds to zero.

    >>> _signed(-0.25, ".2f"), _signed(0.001, ".2f")
    ('−0.25', '0.00')
    """
    text = format(abs(value), spec)
    if float(text) == 0:
        return text
    return f"+{text}" if value > 0 else f"−{text}"


def _reported(name: str) -> Callable[[ReproducedRow], Cell]:
    def cell(row: ReproducedRow) -> Cell:
        found = row.reported.figures.get(name)
        if found is None:
            return None
        return AnnotatedValue(found.text, found.value, verified=found.seen)

    return cell


def difference(row: ReproducedRow, name: str) -> float | None:
    """Measured less reported; None where either is missing."""
    reported, measured = row.reported.figures.get(name), row.measured.get(name)
    if reported is None or measured is None or measured.value is None:
        return None
    return measured.value - reported.value


def relative_difference(row: ReproducedRow, name: str, spec: FigureSpec) -> float | None:
    """The difference as a share of what was reported; of percentages points say more."""
    points = difference(row, name)
    if points is None or spec.unit == "%" or not row.reported.figures[name].value:
        return None
    return points / row.reported.figures[name].value


def _reasons(name: str, record: Reproduction) -> list[str]:
    """The different ways in which a figure was measured."""
    found: Iterable[Measured | None] = (row.measured.get(name) for row in record.rows)
    return list(dict.fromkeys(one.reason for one in found if one and one.value is not None))


def _methods(record: Reproduction) -> list[str]:
    """How figures were measured that were all measured alike; of others their cells tell."""
    specs = figure_specs(record)
    ways = [(spec.title, _reasons(name, record)) for name, spec in specs.items()]
    return [f"{title}, measured: {how[0]}." for title, how in ways if len(how) == 1]


def _counted_on(record: Reproduction) -> list[str]:
    return [f"Energies and rates were counted on {record.images}."] if record.images else []


def _about(row: ReproducedRow, notes: _Notes) -> Cell:
    reported = row.reported
    texts = []
    if reported.source:
        texts.append(f"source: {reported.source}")
    elif any(figure.seen for figure in reported.figures.values()):
        texts.append(NO_SOURCE_NOTE)
    texts += [reported.note] if reported.note else []
    return AnnotatedValue("", notes=tuple(map(notes.number, texts))) if texts else None


def _counted(kind: str, key: str, spec: Callable[[float], str]) -> Callable[[ReproducedRow], Cell]:
    """What was counted: of a kind that rows hold a dictionary of, such as `energy_mj`."""

    def cell(row: ReproducedRow) -> Cell:
        value = getattr(row, kind).get(key)
        if value is None:
            return None
        return AnnotatedValue(format(value, spec(value)), value, measured=True)

    return cell


def _form_columns(kind: str, group: str, spec: Callable[[float], str]) -> list[Column]:
    return [
        Column(f"{kind}_{form}", about.title, _counted(kind, form, spec), group=group)
        for form, about in FORMS.items()
    ]


def _implied(form: Form) -> Callable[[ReproducedRow], Cell]:
    def cell(row: ReproducedRow) -> Cell:
        rate = row.implied_rates.get(form)
        if rate is None:
            return None
        text = format(rate, RATE) + (" (impossible)" if is_impossible(rate, row) else "")
        return AnnotatedValue(text, rate, verified=energy_is_verified(row))

    return cell


def is_impossible(rate: float, row: ReproducedRow) -> bool:
    """Whether no spikes have such a rate; time steps as "1x4" are of spikes that count further."""
    return rate < 0 or (rate > 1 and not isinstance(row.reported.time_steps, str))


def energy_is_verified(row: ReproducedRow) -> bool:
    """Whether what is solved from the reported energy stands on a figure that was seen."""
    energy = row.reported.figures.get(ENERGY)
    return energy is None or energy.seen

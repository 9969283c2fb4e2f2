"""A published table beside what was measured of it: one CSV line a figure, at full precision."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from spikebench.forms import FORMS, Form
from spikebench.papers.record import FigureSpec, ReproducedRow, Reproduction
from spikebench.report.paper_tables import (
    ENERGY,
    details,
    difference,
    energy_is_verified,
    figure_specs,
    is_impossible,
    relative_difference,
)
from spikebench.report.render import csv_text, relative

CSV_COLUMNS = (
    *("table", "row", "model", "time_steps", "spiking", "details"),
    *("figure", "form", "estimator", "unit", "reported", "verified", "implied", "measured"),
    *("difference", "relative_difference", "status", "reason", "source", "note", "record"),
)


def reproduction_csv(path: Path, record: Reproduction, base: Path) -> str:
    """One line a figure, at full precision; a figure that there is not is an empty field.

    Differences are measured less reported, in the figure's unit; relative ones are shares of the
    reported figure. The rate that a reported energy implies stands in a line of each form, named
    `mean_rate`. The record's path is as seen from `base`.
    """
    stream = io.StringIO()
    writer = csv.DictWriter(stream, CSV_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    file = relative(path, base)
    for row in record.rows:
        reported = row.reported
        common = {
            "table": record.table,
            "row": reported.id,
            "model": reported.model,
            "time_steps": "" if reported.time_steps is None else str(reported.time_steps),
            "spiking": "yes" if reported.spiking else "no",
            "details": details(row),
            "source": reported.source or "",
            "note": reported.note or "",
            "record": file,
        }
        texts = {key: csv_text(text) for key, text in common.items()}
        writer.writerows({**texts, **line} for line in _lines(row, record))
    return stream.getvalue()


def _lines(row: ReproducedRow, record: Reproduction) -> Iterator[dict[str, str]]:
    specs = figure_specs(record)
    for name in specs:
        if name in row.reported.figures or name in row.measured:
            yield _figure_line(row, name, specs[name])
    for form, macs in row.dense_gmacs.items():
        yield _counted_line("dense_gmacs", "G", macs, form=form)
    for form in FORMS:
        if form in row.implied_rates or form in row.measured_rates:
            yield _rate_line(row, form)
    for estimator, energy in row.energy_mj.items():
        yield _counted_line(ENERGY, "mJ", energy, estimator=estimator)


def _counted_line(figure: str, unit: str, value: float, **of: str) -> dict[str, str]:
    line = {"figure": figure, "unit": unit, "measured": repr(value), "status": "measured"}
    return {**line, **{key: csv_text(text) for key, text in of.items()}}


def _figure_line(row: ReproducedRow, name: str, spec: FigureSpec) -> dict[str, str]:
    reported, measured = row.reported.figures.get(name), row.measured.get(name)
    points = difference(row, name)
    share = relative_difference(row, name, spec)
    return {
        "figure": name,
        "unit": spec.unit,
        "reported": "" if reported is None else reported.text,
        "verified": "" if reported is None else "yes" if reported.seen else "no",
        "measured": "" if measured is None or measured.value is None else repr(measured.value),
        "difference": "" if points is None else repr(points),
        "relative_difference": "" if share is None else repr(share),
        "status": "" if measured is None else measured.status,
        "reason": "" if measured is None else csv_text(measured.reason),
    }


def _rate_line(row: ReproducedRow, form: Form) -> dict[str, str]:
    implied, measured = row.implied_rates.get(form), row.measured_rates.get(form)
    line = {"figure": "mean_rate", "form": form, "status": "measured"}
    if measured is None:
        line["status"] = "implied by the reported energy"
    else:
        line["measured"] = repr(measured)
    if implied is not None:
        line["implied"] = repr(implied)
        line["verified"] = "yes" if energy_is_verified(row) else "no"
        if is_impossible(implied, row):
            line["reason"] = "impossible: the reported energy cannot be of this form"
    return line

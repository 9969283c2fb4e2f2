"""Records of reproduced tables, and what is made of them."""

import csv
from pathlib import Path

from spikebench.papers.record import (
    FigureSpec,
    Measured,
    Reported,
    ReportedRow,
    ReproducedRow,
    Reproduction,
    write_reproduction_record,
)
from spikebench.report import (
    reproduction_tables,
    write_reproduction,
)

PATH = Path("work/table.json")
BASE = Path("work")
EVIL = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
LATEX_EVIL = r"a_b|c%d&e#f$g{h}i~j^k\l<m>*[n] \undefined -- “é” – ✓"


def missing(reason="no weights were given"):
    return Measured(value=None, status="not measurable here", reason=reason)


def found(value, how="those of the model built here"):
    return Measured(value=value, status="measured", reason=how)


def build_row(
    name="spikeformer",
    time_steps=4,
    reported=None,
    measured=None,
    *,
    unverified=(),
    spiking=True,
    note=None,
    source="Table 3",
    details=None,
    **counts,
):
    figures = {"params_m": 15.1, "energy_mj": 16.7, "top1": 74.1} if reported is None else reported
    return ReproducedRow(
        reported=ReportedRow(
            id=f"{name}-t{time_steps}",
            model=name,
            time_steps=time_steps,
            spiking=spiking,
            note=note,
            source=source,
            details=details or {},
            figures={
                key: Reported(value=float(value), text=str(value), seen=key not in unverified)
                for key, value in figures.items()
            },
        ),
        measured=measured
        or {
            "params_m": found(15.4732),
            "energy_mj": missing(),
            "top1": missing("no folder data/imagenet/val"),
            "dense_gmacs": found(6.4728, "padded positions counted"),
        },
        **counts,
    )


def build_record(*rows, **changes):
    fields = {
        "table": "imagenet",
        "title": "ImageNet-1K",
        "figures": {
            "params_m": FigureSpec(title="Parameters", unit="M"),
            "energy_mj": FigureSpec(title="Energy", unit="mJ", higher_is_better=False),
            "top1": FigureSpec(title="Top-1", unit="%", decimals=1, higher_is_better=True),
            "dense_gmacs": FigureSpec(title="Dense MACs", unit="G"),
        },
        "rows": list(rows),
        "device": "a processor, 2 threads",
        "commit": "abc1234",
        "started": "2026-11-23T00:00:00+00:00",
    }
    return Reproduction(**{**fields, **changes})


IMPLIED = {
    "dense_gmacs": {"as-coded": 6.4728, "dense": 6.4728, "paper": 14.89},
    "implied_rates": {"as-coded": 1.25, "dense": 0.9996, "paper": 0.3081},
}


def tables(*rows, **changes):
    return reproduction_tables(PATH, build_record(*rows, **changes))


def texts(table, row=0):
    return {column.key: column.text(table.rows[row].cells[column.key]) for column in table.columns}


def lines(*rows, **changes):
    """The lines of the CSV file by row, figure, form and estimator."""
    folder = changes.pop("folder")
    written = write_reproduction(folder / "imagenet.json", build_record(*rows, **changes))
    path = next(path for path in written if path.suffix == ".csv")
    with path.open(encoding="utf-8", newline="") as stream:
        read = list(csv.DictReader(stream))
    keys = ("row", "figure", "form", "estimator")
    by_key = {tuple(line[key] for key in keys): line for line in read}
    assert len(by_key) == len(read)
    return by_key


def page(record, folder):
    path = write_reproduction_record(record, folder)
    written = write_reproduction(path, record)
    return next(path for path in written if path.suffix == ".html").read_text(encoding="utf-8")

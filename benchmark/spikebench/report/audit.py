"""The spike-driven check on paper: its record, and the tables and files that are made from it."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field

from spikebench.energy.audit import Audit, audit
from spikebench.energy.operations import NeuronRow, OperationReport, OperationRow, Uncounted
from spikebench.files import write_atomically
from spikebench.report.columns import MISSING, Cell, Column, SeedValues
from spikebench.report.heatmap import write_heat_map
from spikebench.report.render import csv_text, print_tables, to_markdown
from spikebench.report.tables import Row, Table
from spikebench.results import Strict

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA_VERSION: Literal[1] = 1
RECORD, MARKDOWN, OPERATIONS = "audit.json", "audit.md", "operations.csv"
RATES, HEAT_MAP = "firing_rates.csv", "firing_rates.png"


class AuditSettings(Strict):
    """What was audited: one classifier, on which images.

    Attributes:
        backbone_name: a registered backbone.
        options: its arguments other than `time_steps`.
        image_size: pixels each side.
        images: what they are, in a few words.
        weights: the name of their file, or how they were made.
        weights_sha256: of that file.
    """

    backbone_name: str
    options: dict[str, Any] = Field(default_factory=dict)
    time_steps: int
    image_size: int
    num_classes: int
    images: str
    weights: str
    weights_sha256: str | None = None


class AuditRecord(Strict):
    """The operation counts of one model in several forms, from which all else is worked out.

    Attributes:
        reports: one for each form.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    kind: Literal["audit"] = "audit"
    settings: AuditSettings
    reports: list[OperationReport] = Field(min_length=1)
    packages: dict[str, str] = Field(default_factory=dict)
    commit: str | None = None
    device: str
    started: str

    @property
    def audits(self) -> list[Audit]:
        """The check of each form."""
        return [audit(report) for report in self.reports]

    @property
    def title(self) -> str:
        """The model, T, the size and number of its images."""
        about, report = self.settings, self.reports[0]
        images = f"{report.images} image{'' if report.images == 1 else 's'}"
        pixels = f"{about.image_size}x{about.image_size} pixels"
        return f"{about.backbone_name} (T = {report.time_steps}, {images}, {pixels})"


def write_audit(record: AuditRecord, folder: Path) -> list[Path]:
    """Write everything about an audit into `folder`; a model without neurons has no heat map.

    Returns:
        The files that were written, the record first.
    """
    texts = {
        RECORD: record.model_dump_json(indent=1) + "\n",
        MARKDOWN: _markdown(record, folder),
        OPERATIONS: _operations_csv(record.reports),
        RATES: _rates_csv(record.reports),
    }
    paths = [folder / name for name in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        write_atomically(path, text)
    picture = folder / HEAT_MAP
    if record.reports[0].neurons:
        write_heat_map(record.reports[0].neurons, f"Firing rates: {record.title}", picture)
        paths.append(picture)
    else:
        picture.unlink(missing_ok=True)  # of another model
    return paths


def print_audit(record: AuditRecord, console: Console) -> None:
    """Print for each form its verdict and its tables, then the firing rates."""
    from rich.text import Text

    audits = record.audits
    for found in audits:
        console.print(Text(f"{found.report.form}: {found.verdict}", style="bold"), soft_wrap=True)
        print_tables(form_tables(found), console, hidden=())
    print_tables([rate_table(record.reports)], console, hidden=())
    for line in extremes(audits[0]):
        console.print(Text(line), soft_wrap=True)


class Group(NamedTuple):
    """Rows that read alike, and their share of the dense work."""

    rows: Sequence[Any]
    share: float | None


def structural_name(name: str) -> str:
    """A module's name with `*` for indices, the same for each of a number of blocks.

    The last of several indices stays where it ends the name: it tells the layers of a sequence
    apart.

    >>> structural_name("stages.2.blocks.5.sep_conv.pw2.conv")
    'stages.*.blocks.*.sep_conv.pw2.conv'
    >>> structural_name("stages.3.conv.1"), structural_name("features.4")
    ('stages.*.conv.1', 'features.*')
    """
    parts = name.split(".")
    places = [place for place, part in enumerate(parts) if part.isdigit()]
    if len(places) > 1 and places[-1] == len(parts) - 1:
        places.pop()
    return ".".join("*" if place in places else part for place, part in enumerate(parts))


def form_tables(found: Audit) -> list[Table]:
    """What of one form is no plain addition of spikes; of unknown size, then the largest, first."""
    form = found.report.form
    role = Column("role", "", lambda group: _role(found, group.rows[0]), "text")
    multiplied = _grouped(found, (*found.real, *found.encoding), _about_row)
    integers = _grouped(found, found.integer, _about_row)
    unseen = _grouped(found, found.unseen, _about_row)
    uncounted = _grouped(found, (*found.no_rule, *found.elementwise), _about_uncounted)
    return [
        _table(f"{form}: operations that multiply", (*_WHICH, _SHARE, role), multiplied),
        _table(
            f"{form}: operations that read integers",
            (*_WHICH, _RANGE, _ACCUMULATIONS, _SHARE, _TREATMENT),
            integers,
        ),
        _table(f"{form}: operations that read only zeros", (*_WHICH, _SHARE), unseen),
        _table(f"{form}: arithmetic outside the count", _UNCOUNTED, uncounted),
    ]


def rate_table(reports: Sequence[OperationReport]) -> Table:
    """The firing rates of the first form by layer and time step; no row without neurons."""
    first, *others = reports
    steps = max((len(row.rates) for row in first.neurons), default=0)
    columns = (
        Column("layer", "layer", lambda row: row.name, "text"),
        Column("kind", "kind", lambda row: row.kind, "text"),
        _rate("rate", "mean (%)", lambda row: row.rate),
        *(_rate(f"rate_t{step}", f"t = {step} (%)", _at(step)) for step in range(1, steps + 1)),
    )
    differences = [
        abs(rate - first.firing_rates[name])
        for other in others
        for name, rate in other.firing_rates.items()
        if name in first.firing_rates
    ]
    apart = 100 * max(differences, default=0)
    note = f"Mean rates of the other forms differ by at most {apart:.2g} percentage points."
    notes = (note,) if differences else ()
    return replace(_table(f"{first.form}: firing rates", columns, first.neurons), notes=notes)


def extremes(found: Audit) -> list[str]:
    """One line naming the silent layers of neurons, and one for the saturated ones."""
    if not found.report.neurons:
        return []
    layers = {"silent (rate 0)": found.silent, "saturated (rate 1)": found.saturated}
    return [f"{what}: {', '.join(names) or 'none'}" for what, names in layers.items()]


def _at(step: int) -> Callable[[NeuronRow], float | None]:
    return lambda row: row.rates[step - 1] if step <= len(row.rates) else None


def _rate(key: str, title: str, of: Callable[[NeuronRow], float | None]) -> Column:
    return Column(key, title, lambda row: _figure(of(row)), "constant", scale=100, decimals=2)


def _figure(value: float | None) -> Cell:
    return None if value is None else SeedValues((value,))


def _table(title: str, columns: tuple[Column, ...], items: Iterable[Any]) -> Table:
    rows = tuple(Row({column.key: column.of(item) for column in columns}) for item in items)
    return Table("audit", title, columns, rows)


def _grouped(found: Audit, items: Iterable[Any], about: Callable[[Any], tuple]) -> list[Group]:
    groups: dict[tuple, list[Any]] = {}
    for item in items:
        groups.setdefault(about(item), []).append(item)
    made = [Group(rows, found.share(rows)) for rows in groups.values()]
    return sorted(made, key=lambda group: -1.0 if group.share is None else -group.share)


def _about_row(row: OperationRow) -> tuple:
    return structural_name(row.name), row.kind, _reads(row), _treatment(row), row.encodes


def _about_uncounted(part: Uncounted) -> tuple:
    """Elementwise arithmetic goes by what runs; what has no rule by where it runs, too."""
    where = structural_name(part.name) if part.reason == "no rule" else ""
    return part.operation, part.reason, where


def _reads(row: OperationRow) -> str:
    return row.value_kind + (f" x {row.other_value_kind}" if row.other_value_kind else "")


def _treatment(row: OperationRow) -> str:
    if row.accumulations is None:
        return "multiplied"
    if {row.value_kind, row.other_value_kind} & {"binary", "scaled"}:
        return "added where the other operand fires"
    return "n is added n times"


def _role(found: Audit, row: OperationRow) -> str:
    return "encoding, exempt" if row in found.encoding else ""


def _range(group: Group) -> str:
    ranges = [
        bounds
        for row in group.rows
        for kind, bounds in (
            (row.value_kind, row.value_range),
            (row.other_value_kind, row.other_value_range),
        )
        if kind == "integer" and bounds is not None
    ]
    if not ranges:
        return MISSING
    return f"{min(low for low, _ in ranges):g} to {max(high for _, high in ranges):g}"


def _accumulations(group: Group) -> Cell:
    """Of a multiply-accumulate on average over the dense work of the group."""
    work = sum(row.dense_macs for row in group.rows)
    if work == 0 or any(row.accumulations is None for row in group.rows):
        return None
    return SeedValues((sum(row.accumulations * row.dense_macs for row in group.rows) / work,))


def _where(group: Group) -> str:
    """The place of all, or one of their places and how many others there are."""
    names = list(dict.fromkeys(structural_name(part.name) for part in group.rows))
    others = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return (names[0] if len(group.rows) > 1 else group.rows[0].name) + others


_COUNT = Column("count", "x", lambda group: _figure(len(group.rows)), "setting", decimals=0)
_SHARE = Column(
    "share", "dense work (%)", lambda group: _figure(group.share), "constant", scale=100
)
_WHICH = (
    Column("operation", "operation", _where, "text"),
    _COUNT,
    Column("kind", "kind", lambda group: group.rows[0].kind, "text"),
    Column("reads", "reads", lambda group: _reads(group.rows[0]), "text"),
)
_RANGE = Column("range", "integers", _range, "text")
_ACCUMULATIONS = Column("accumulations", "additions a MAC", _accumulations, "constant")
_TREATMENT = Column("treatment", "how", lambda group: _treatment(group.rows[0]), "text")
_UNCOUNTED = (
    Column("operation", "operation", lambda group: group.rows[0].operation, "text"),
    _COUNT,
    Column("reason", "reason", lambda group: group.rows[0].reason, "text"),
    Column("where", "where", _where, "text"),
    _SHARE,
)


_VERDICTS = (
    Column("form", "form", lambda found: found.report.form, "text"),
    Column("verdict", "verdict", lambda found: found.verdict, "text"),
)


def _markdown(record: AuditRecord, folder: Path) -> str:
    about, audits = record.settings, record.audits
    settings = {
        "images": about.images,
        "classes": about.num_classes,
        "weights": about.weights,
        "options": ", ".join(f"{name}={value}" for name, value in about.options.items()),
        "record": f"[{RECORD}]({RECORD})",
    }
    verdicts = _table("Verdicts", _VERDICTS, audits)
    tables = [verdicts, *(table for found in audits for table in form_tables(found))]
    tables.append(rate_table(record.reports))
    parts = [
        f"# Spike-driven check: {record.title}\n",
        *(f"- {name}: {value}" for name, value in settings.items() if value),
        "",
        *(to_markdown(replace(one, record=folder / RECORD), folder) for one in tables if one.rows),
        *(f"- {line}" for line in extremes(audits[0])),
    ]
    if record.reports[0].neurons:
        parts.append(f"\n![Firing rates]({HEAT_MAP})")
    return "\n".join(parts) + "\n"


def _operations_csv(reports: Iterable[OperationReport]) -> str:
    fields = list(OperationRow.model_fields)
    return _csv(
        ["form", *(name for field in fields for name in _names(field)), "accumulations"],
        (
            [
                report.form,
                *(value for field in fields for value in _values(field, getattr(row, field))),
                row.accumulations,
            ]
            for report in reports
            for row in report.rows
        ),
    )


def _rates_csv(reports: Sequence[OperationReport]) -> str:
    steps = max((len(row.rates) for report in reports for row in report.neurons), default=0)
    fields = ["name", "kind", "neurons", "updates", "spikes", "rate", "rate_std"]
    return _csv(
        ["form", *fields, *(f"rate_t{step}" for step in range(1, steps + 1))],
        (
            [
                report.form,
                *(getattr(row, field) for field in fields),
                *row.rates,
                *[None] * (steps - len(row.rates)),
            ]
            for report in reports
            for row in report.neurons
        ),
    )


def _names(field: str) -> list[str]:
    return [f"{field}_low", f"{field}_high"] if field.endswith("range") else [field]


def _values(field: str, value: Any) -> Sequence[Any]:
    if field.endswith("range"):
        return value or (None, None)
    return [";".join(map(repr, value)) if isinstance(value, list) else value]


def _csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Numbers at full precision; what is not known is an empty field."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(
        [csv_text(value) if isinstance(value, str) else value for value in row] for row in rows
    )
    return stream.getvalue()

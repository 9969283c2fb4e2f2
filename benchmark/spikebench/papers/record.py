"""The record of a reproduced table: reported and measured figures side by side, read without torch.

Figures are in the units that papers print (parameters in millions, accuracy in percent), at full
precision; `FigureSpec` says how one is shown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from spikebench.files import write_atomically
from spikebench.forms import Form
from spikebench.results import Strict

SCHEMA_VERSION: Literal[1] = 1


class Reported(Strict):
    """One figure that a paper prints.

    Attributes:
        value: the figure, in the unit of its `FigureSpec`.
        text: the figure with the digits that the paper prints, such as "78.80".
        seen: whether someone read it in a source; else it is from memory, unverified.
    """

    value: float
    text: str
    seen: bool

    @model_validator(mode="after")
    def _text_says_the_value(self) -> Reported:
        try:
            alike = float(self.text) == self.value
        except ValueError:
            alike = False
        if not alike:
            raise ValueError(f"the text {self.text!r} does not say {self.value!r}")
        return self


class FigureSpec(Strict):
    """How a figure is called and shown.

    Attributes:
        title: heading of its column.
        unit: such as "M", "mJ", "%"; may be empty.
        decimals: digits behind the point.
        higher_is_better: which way is up; None where neither is.
    """

    title: str
    unit: str
    decimals: int = 2
    higher_is_better: bool | None = None


class ReportedRow(Strict):
    """One row of a published table.

    Attributes:
        id: names the row within its table.
        model: as this project calls it where it has it, else as its authors do.
        time_steps: T; a text such as "1x4" where it is no plain number; None where unknown.
        spiking: False for an ANN, whose operations are all multiply-accumulates.
        note: what a reader should know of it.
        source: where the figures stand; None where nobody noted it.
        details: what else tells rows of one model apart (detector, size, distilled), in words.
        figures: by name, as in the table's `FigureSpec`s.
    """

    id: str
    model: str
    time_steps: int | str | None = None
    spiking: bool = True
    note: str | None = None
    source: str | None = None
    details: dict[str, str] = Field(default_factory=dict)
    figures: dict[str, Reported]


class Measured(Strict):
    """What this machine found for a figure.

    Attributes:
        value: in the unit of its `FigureSpec`; None exactly where it is not measurable here.
        status: whether there is a value.
        reason: how it was measured, or what is missing.
    """

    value: float | None
    status: Literal["measured", "not measurable here"]
    reason: str


class ReproducedRow(Strict):
    """A reported row with what was measured of it.

    Attributes:
        reported: the row as published.
        measured: by figure: those that were reported, and parameters (`params_m`) and dense MACs as
            coded (`dense_gmacs`) always.
        dense_gmacs: dense multiply-accumulates per image and time step, in 1e9, of each form.
        implied_rates: mean accumulations per multiply-accumulate that would make the reported
            energy, by form; empty where no energy is reported, or the row is no SNN built here.
        energy_mj: energy per image in millijoules, by estimator id; empty without weights. Of an
            ANN, which has random ones, only by estimators that ask for no values.
        measured_rates: the same mean as `implied_rates`, counted on images; empty without weights.
    """

    reported: ReportedRow
    measured: dict[str, Measured]
    dense_gmacs: dict[Form, float] = Field(default_factory=dict)
    implied_rates: dict[Form, float] = Field(default_factory=dict)
    energy_mj: dict[str, float] = Field(default_factory=dict)
    measured_rates: dict[Form, float] = Field(default_factory=dict)


class Reproduction(Strict):
    """A published table, reproduced as far as this machine can.

    Attributes:
        table: its name, such as "imagenet".
        title: what a reader sees.
        figures: the columns, in their order.
        rows: in the order of the table.
        images: what energies and rates were counted on; empty where none were.
        commit: of this project's checkout.
        packages: versions.
        device: what it ran on.
        started: ISO 8601, UTC.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    table: str
    title: str
    figures: dict[str, FigureSpec]
    rows: list[ReproducedRow]
    images: str = ""
    commit: str | None = None
    packages: dict[str, str] = Field(default_factory=dict)
    device: str
    started: str


def write_reproduction_record(record: Reproduction, folder: Path) -> Path:
    """Write `folder/reproduction-<table>.json`, whole or not at all, and return its path."""
    path = folder / f"reproduction-{record.table}.json"
    write_atomically(path, record.model_dump_json(indent=1) + "\n")
    return path

"""Energy estimators: a rule over operation counts, with its constants and their source.

The shipped ones are the entries of `estimators.yaml`; importing this module registers them in
`spikebench.registry.ESTIMATORS`. Other packages bring theirs through that registry's entry points,
and a user without a package names YAML files in the environment variable `SPIKEBENCH_ESTIMATORS`.
`README.md` in this folder has the equations.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from spikebench.energy.estimator_rules import RULES, Charges, constants_of
from spikebench.energy.operations import OperationReport
from spikebench.errors import UserError
from spikebench.forms import Form
from spikebench.registry import ESTIMATORS, collision, unknown_name
from spikebench.strict_yaml import StrictLoader

VARIABLE = "SPIKEBENCH_ESTIMATORS"
"""The environment variable that names further estimator files, separated as in PATH."""

_MILLIJOULES_PER_PICOJOULE = 1e-9

Constant = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]


class EstimatorError(UserError, ValueError):
    """An estimator, or a file of them, is missing or wrong; the message names place and fault."""


class Estimator(BaseModel):
    """How operations are charged.

    Attributes:
        id: short name, as in tables and records.
        title: what a reader sees.
        rule: the name of a rule in `RULES`.
        form: the form of a model that it charges; see `spikebench.forms`.
        constants: the constants of the rule, with their units in their names.
        source: where rule and constants come from, and what of that is unverified.

    Raises:
        ValidationError: the rule is unknown, or a constant is missing, unknown or no number >= 0.

    Example:
        >>> chip = Estimator(id="my-chip", title="my chip, 28 nm", rule="exact",
        ...     constants={"mac_pj": 2.3, "ac_pj": 0.4}, source="data sheet, table 3")
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(min_length=1)
    title: str = Field(min_length=1)
    rule: str
    form: Form = "as-coded"
    constants: Mapping[str, Constant]
    source: str = Field(min_length=1)

    @model_validator(mode="after")
    def _takes_the_constants_of_its_rule(self) -> Estimator:
        if self.rule not in RULES:
            raise ValueError(str(unknown_name("rule", self.rule, RULES)))
        needed = constants_of(RULES[self.rule])
        for name in self.constants:
            if name not in needed:
                raise ValueError(str(unknown_name(f"constant of {self.rule}", name, needed)))
        for name in needed:
            if name not in self.constants:
                raise ValueError(
                    f"the constant {name} is missing; {self.rule} needs {', '.join(needed)}"
                )
        return self

    def charge(self, report: OperationReport) -> Charges:
        """Picojoules per image, summed over time steps, by the name of a row; some come twice."""
        return RULES[self.rule](report, **self.constants)


def energies(*reports: OperationReport) -> dict[str, float]:
    """Energy per image of a model by every estimator whose form was counted.

    Args:
        reports: operation counts of one model, each in another form.

    Returns:
        Millijoules per image, summed over time steps, by estimator id, in the order of the files.

    Raises:
        ValueError: two reports are of one form.
        EstimatorError: the estimators' data is not valid; see `load_estimators`.

    Example:
        >>> from spikebench.energy.operations import OperationReport, OperationRow
        >>> row = OperationRow(
        ...     name="fc", kind="linear", dense_macs=1e9, dense_macs_unpadded=1e9,
        ...     value_kind="binary", rate=0.2, exact_synaptic_operations=3e8,
        ... )
        >>> report = OperationReport(images=1, time_steps=2, rows=[row])
        >>> round(energies(report)["rate-45nm"], 3)  # 1e9 * 2 * 0.2 additions at 0.9 pJ
        0.36
    """
    return {
        estimator.id: sum(energy_by_operation(report, estimator).values())
        for estimator, report in _charged(reports)
    }


def energies_by_part(*reports: OperationReport) -> dict[str, dict[str, float]]:
    """Energy per image of each part of a model by every estimator whose form was counted.

    The part of an operation or layer of neurons is what its name begins with, up to the first dot:
    `backbone`, `neck`, `roi_head`, ...; neurons and memory are charged to the part they are in.

    Args:
        reports: operation counts of one model, each in another form.

    Returns:
        Millijoules per image, summed over time steps, by estimator id and part, in the order of
        execution; the parts of an estimator add up to what `energies` gives.

    Raises:
        ValueError: two reports are of one form.
        EstimatorError: the estimators' data is not valid; see `load_estimators`.

    Example:
        >>> from spikebench.energy.operations import OperationReport, OperationRow
        >>> rows = [
        ...     OperationRow(
        ...         name=name, kind="linear", dense_macs=1e9, dense_macs_unpadded=1e9,
        ...         value_kind="binary", rate=rate, exact_synaptic_operations=1e9 * rate,
        ...     )
        ...     for name, rate in (("neck.fc", 0.2), ("neck.out", 0.1), ("head", 0.5))
        ... ]
        >>> parts = energies_by_part(OperationReport(images=1, time_steps=1, rows=rows))
        >>> {part: round(energy, 2) for part, energy in parts["rate-45nm"].items()}
        {'neck': 0.27, 'head': 0.45}
    """
    parts: dict[str, dict[str, float]] = {}
    for estimator, report in _charged(reports):
        energy = parts.setdefault(estimator.id, {})
        for name, millijoules in energy_by_operation(report, estimator).items():
            part = name.partition(".")[0]
            energy[part] = energy.get(part, 0.0) + millijoules
    return parts


def _charged(reports: Sequence[OperationReport]) -> Iterator[tuple[Estimator, OperationReport]]:
    """The estimators whose form was counted, each with the report that it charges."""
    by_form: dict[Form, OperationReport] = {}
    for report in reports:
        if report.form in by_form:
            raise ValueError(f"two reports are of the form {report.form!r}; give one of each form")
        by_form[report.form] = report
    for estimator in load_estimators().values():
        if estimator.form in by_form:
            yield estimator, by_form[estimator.form]


def energy_by_operation(report: OperationReport, estimator: Estimator) -> dict[str, float]:
    """Energy per image of each row of a count.

    Args:
        report: the operation count of a model, in the estimator's form.
        estimator: how it is charged.

    Returns:
        Millijoules per image, summed over time steps, by row name: every operation, then the
        neuron layers that cost something. Rows of one name are added up.

    Raises:
        ValueError: the report is of another form.
    """
    if report.form != estimator.form:
        raise ValueError(
            f"estimator {estimator.id!r} charges the form {estimator.form!r}, but the report is of "
            f"the form {report.form!r}; count the model in that form"
        )
    energy = {row.name: 0.0 for row in report.rows}
    for name, picojoules in estimator.charge(report):
        if picojoules or name in energy:
            energy[name] = energy.get(name, 0.0) + picojoules * _MILLIJOULES_PER_PICOJOULE
    return energy


def implied_rate(report: OperationReport, energy_mj: float, estimator: Estimator) -> float:
    """The rate at which the rule "rate" would give a model a known energy.

    What encodes the image is charged as multiply-accumulates, as often as the report counted it;
    all else as accumulates, at one rate. Only dense multiply-accumulates are read from the report,
    which may be of any form: one form explains a published energy by a rate that can be, another
    does not.

    Args:
        report: the operation count of a model.
        energy_mj: its energy in millijoules per image.
        estimator: one of the rule "rate".

    Returns:
        Accumulations per dense multiply-accumulate; above 1 or negative where the energy does not
        fit the form.

    Raises:
        ValueError: the estimator has another rule, or the report has no operations but the
            encoding.
    """
    if estimator.rule != "rate":
        raise ValueError(
            f"estimator {estimator.id!r} has the rule {estimator.rule!r}; a rate is implied only "
            "by an energy of the rule 'rate'"
        )
    encoding = sum(row.dense_macs for row in report.rows if row.encodes) * report.time_steps
    others = sum(row.dense_macs for row in report.rows if not row.encodes) * report.time_steps
    if others == 0:
        raise ValueError(
            "the report has no operation behind a neuron, so its energy implies no firing rate"
        )
    picojoules = energy_mj / _MILLIJOULES_PER_PICOJOULE - encoding * estimator.constants["mac_pj"]
    return picojoules / (others * estimator.constants["ac_pj"])


def load_estimators() -> Mapping[str, Estimator]:
    """The estimators by id: the shipped ones, those of other packages, those of the user's files.

    Files are read anew each time.

    Raises:
        EstimatorError: a file cannot be read or is not valid, an entry lacks a field, names an
            unknown rule or has wrong constants, or a package brings something else.
        PluginError: a package that brings an estimator cannot be imported.
        CollisionError: two places give one id.
    """
    brought = [name for name in ESTIMATORS.names() if name not in _SHIPPED]
    estimators = {name: _registered(name) for name in (*_SHIPPED, *brought)}
    places = {name: ESTIMATORS.place(name) for name in estimators}
    for path in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        source = Path(path).expanduser()
        for estimator in _read(source):
            if estimator.id in estimators:
                raise collision(ESTIMATORS.kind, estimator.id, places[estimator.id], str(source))
            estimators[estimator.id] = estimator
            places[estimator.id] = str(source)
    return MappingProxyType(estimators)


def _registered(name: str) -> Estimator:
    entry = ESTIMATORS.get(name)
    found = entry() if callable(entry) else entry
    place = ESTIMATORS.place(name)
    if not isinstance(found, Estimator):
        raise EstimatorError(
            f"{place}: estimator {name!r}: expected an Estimator, or a function without arguments "
            f"that returns one; found {found!r}"
        )
    if found.id != name:
        raise EstimatorError(
            f"{place}: estimator {name!r} has the id {found.id!r}; give both one name"
        )
    return found


def _read(source: Traversable) -> Iterator[Estimator]:
    try:
        entries = yaml.load(source.read_text(encoding="utf-8"), StrictLoader)
    except OSError as error:
        raise EstimatorError(
            f"{source}: cannot be read: {error.strerror}; {VARIABLE} names files of estimators"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise EstimatorError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(entries, dict):
        raise EstimatorError(f"{source}: expected estimators by id, found {entries!r}")
    for id_, fields in entries.items():
        if not isinstance(fields, dict) or "id" in fields:
            raise EstimatorError(
                f"{source}: estimator {id_!r}: expected title, rule, constants and source, "
                f"found {fields!r}"
            )
        try:
            yield Estimator.model_validate({"id": id_} | fields)
        except ValidationError as error:
            raise EstimatorError(f"{source}: estimator {id_!r}: {_first(error)}") from None


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if not where:
        return message
    found = "" if first["type"] == "missing" else f", found {first['input']!r}"
    return f"{where}: {message}{found}"


def _register_shipped() -> list[str]:
    source = files("spikebench.energy").joinpath("estimators.yaml")
    shipped = list(_read(source))
    for estimator in shipped:
        ESTIMATORS.register(estimator, name=estimator.id, place=str(source))
    return [estimator.id for estimator in shipped]


_SHIPPED = _register_shipped()
"""Their ids in the order of the file, which is that of columns in tables."""

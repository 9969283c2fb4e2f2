"""Energy estimators: rules over operation counts, with constants and their sources from data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.resources import files
from types import MappingProxyType

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from benchmark.energy.operations import OperationReport, OperationRow

_MILLIJOULES_PER_PICOJOULE = 1e-9


class Estimator(BaseModel):
    """How operations are charged.

    Attributes:
        id: short name, as in tables and records.
        title: what a reader sees.
        rule: "rate" (dense MACs times the input's rate) or "exact" (operations that really meet).
        mac_pj: energy of a multiply-accumulate in picojoules.
        ac_pj: energy of an accumulate in picojoules.
        source: where rule and constants come from.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    title: str
    rule: str
    mac_pj: float
    ac_pj: float
    source: str


def energies(report: OperationReport) -> dict[str, float]:
    """Energy per image by every estimator.

    Args:
        report: the operation count of a model.

    Returns:
        Millijoules per image, summed over time steps, by estimator id.

    Raises:
        ValueError: the estimators' data is not valid; see `load_estimators`.
    """
    return {
        estimator.id: _MILLIJOULES_PER_PICOJOULE
        * sum(
            _RULES[estimator.rule](row, report.time_steps)
            * (estimator.ac_pj if row.is_accumulate else estimator.mac_pj)
            for row in report.rows
        )
        for estimator in load_estimators().values()
    }


@lru_cache(maxsize=1)
def load_estimators() -> Mapping[str, Estimator]:
    """The estimators of `estimators.yaml` by id, in the order of the file.

    Raises:
        ValueError: an entry of the file lacks a field or names an unknown rule.
    """
    text = files("benchmark.energy").joinpath("estimators.yaml").read_text(encoding="utf-8")
    return MappingProxyType(_parse(text))


def _parse(text: str) -> dict[str, Estimator]:
    estimators = {}
    for id_, fields in yaml.safe_load(text).items():
        try:
            estimator = Estimator(id=id_, **fields)
        except (TypeError, ValidationError) as error:
            raise ValueError(f"estimators.yaml: {id_!r} is not an estimator: {error}") from None
        if estimator.rule not in _RULES:
            known = ", ".join(_RULES)
            raise ValueError(
                f"estimators.yaml: {id_!r} has the unknown rule {estimator.rule!r}; known: {known}"
            )
        estimators[id_] = estimator
    return estimators


def _rate(row: OperationRow, time_steps: int) -> float:
    """Operations per image if the rate of spikes were the same wherever weights are met."""
    operations = row.dense_macs * time_steps
    if not row.is_accumulate:
        return operations
    if row.value_kind == "real" and row.other_rate is not None:
        return operations * row.other_rate
    return operations * row.rate


def _exact(row: OperationRow, time_steps: int) -> float:
    return row.exact_synaptic_operations


_RULES: dict[str, Callable[[OperationRow, int], float]] = {"rate": _rate, "exact": _exact}

"""Counting the operations of a row's model, and what its reported energy says of firing rates."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from spikebench.energy.counter import profile_operations, until_counted
from spikebench.energy.estimators import implied_rate, load_estimators
from spikebench.energy.operations import Form, OperationReport
from spikebench.errors import UserError
from spikebench.inference.deploy import in_form
from spikebench.papers.building import Subject, build_subject, time_steps_of
from spikebench.papers.reported import Build, PaperTable, TableRow, TaskBuild
from spikebench.progress import Progress

log = logging.getLogger("spikebench")

FORMS: tuple[Form, ...] = ("as-coded", "dense", "paper")
PAPER_ESTIMATOR = "paper-45nm"


class Counts(NamedTuple):
    """What follows from architecture and image size alone.

    Attributes:
        parameters: of the whole model.
        time_steps: T that was counted at.
        reports: by form; of an ANN, and of a row about a fused form, only "as-coded".
    """

    parameters: int
    time_steps: int
    reports: dict[Form, OperationReport]


class Counter:
    """Counts rows of a table; those that share build, T and size are counted once."""

    def __init__(self, table: PaperTable) -> None:
        self.table = table
        self._counts: dict[tuple[Any, ...], Counts] = {}

    def __call__(self, row: TableRow, build: Build) -> Counts:
        """Parameters, and one image counted in each form.

        Dense multiply-accumulates of a time step do not depend on T, so classifiers are counted at
        T = 1. The model of a task may run its neck and heads once for all time steps: it is counted
        at the row's T.

        Raises:
            UserError: the model cannot be built, or does not take the image size.
        """
        steps = time_steps_of(row) if isinstance(build, TaskBuild) else 1
        key = (build.model_dump_json(), steps, row.image_size)
        if key not in self._counts:
            subject = build_subject(self.table, row, steps)
            parameters = sum(weight.numel() for weight in subject.model.parameters())
            self._counts[key] = Counts(parameters, steps, count_forms(row, build, subject, 1))
        return self._counts[key]


def count_forms(
    row: TableRow, build: Build, subject: Subject, count: int
) -> dict[Form, OperationReport]:
    """The operations of a model in each form of it.

    Args:
        row: whose model it is.
        build: of the row.
        subject: the model.
        count: how many images.

    Raises:
        UserError: the model does not take the image size, or a form cannot be made.
    """
    alone = build.fused or not row.spiking
    reports: dict[Form, OperationReport] = {}
    for form in FORMS[:1] if alone else FORMS:
        with Progress(f"{row.id}, {form}", count) as progress:
            try:
                reports[form] = profile_operations(
                    in_form(subject.model, form),
                    until_counted(subject.batches(count), count),
                    forward=subject.forward,
                    time_steps=subject.time_steps,
                    form=form,
                    progress=progress.update,
                )
            except ValueError as error:  # an image size that the model does not take
                raise UserError(f"{row.id}: {error}") from error
    return reports


def implied_rates(row: TableRow, counts: Counts) -> dict[Form, float]:
    """The mean firing rate, in each form, that the reported energy of an SNN means at the row's T.

    A still image is encoded once, whether or not a form runs the encoding T times.
    """
    energy = {**row.seen, **row.unverified}.get("energy_mj")
    fused = row.build is not None and row.build.fused
    if energy is None or fused or not row.spiking:
        return {}
    if all(one.encodes for one in counts.reports["as-coded"].rows):
        log.warning("%s: no neuron was recognised in it, so its energy implies no rate", row.id)
        return {}
    estimator = load_estimators()[PAPER_ESTIMATOR]
    times = time_steps_of(row) / counts.time_steps
    encodings = {form: _encoding_mj(report) for form, report in counts.reports.items()}
    once = min(encodings.values())
    return {
        form: implied_rate(report, float(energy) + encodings[form] - once, estimator) / times
        for form, report in counts.reports.items()
    }


def mean_rate(report: OperationReport) -> float:
    """Mean accumulations per multiply-accumulate behind the encoding, as `implied_rates` has them.

    Of real-valued inputs, which are not accumulated, it is the share that is not zero.
    """
    rows = [row for row in report.rows if not row.encodes]
    total = sum(row.dense_macs for row in rows)
    each = (row.rate if row.accumulations is None else row.accumulations for row in rows)
    return sum(rate * row.dense_macs for rate, row in zip(each, rows, strict=True)) / total


def _encoding_mj(report: OperationReport) -> float:
    """What the papers' rule charges for operations that read the image."""
    macs = sum(row.dense_macs for row in report.rows if row.encodes) * report.time_steps
    return macs * load_estimators()[PAPER_ESTIMATOR].constants["mac_pj"] * 1e-9

"""Counts the operations of the model that a row of a published table is about."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from spikebench.energy.batches import until_counted
from spikebench.energy.operations import OperationReport
from spikebench.energy.profile import profile_operations
from spikebench.errors import UserError
from spikebench.forms import FORMS, Form
from spikebench.inference.deploy import in_form
from spikebench.papers.building import CountedModel, build_model, time_steps_of
from spikebench.papers.reported import Build, PaperTable, TableRow, TaskBuild
from spikebench.progress import Progress


class RowCounts(NamedTuple):
    """What follows from architecture and image size alone.

    Attributes:
        parameters: of the whole model.
        time_steps: T that was counted at.
        reports: by form; of an ANN, and of a row about a fused form, only "as-coded".
    """

    parameters: int
    time_steps: int
    reports: dict[Form, OperationReport]


class RowCounter:
    """Counts rows of a table; those that share build, T and size are counted once."""

    def __init__(self, table: PaperTable) -> None:
        self.table = table
        self._counts: dict[tuple[Any, ...], RowCounts] = {}

    def __call__(self, row: TableRow, build: Build) -> RowCounts:
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
            counted = build_model(self.table, row, steps)
            parameters = sum(weight.numel() for weight in counted.model.parameters())
            self._counts[key] = RowCounts(parameters, steps, count_forms(row, build, counted, 1))
        return self._counts[key]


def count_forms(
    row: TableRow, build: Build, counted: CountedModel, count: int
) -> dict[Form, OperationReport]:
    """The operations of a model in each form of it.

    Args:
        row: whose model it is.
        build: of the row.
        counted: the model.
        count: how many images.

    Raises:
        UserError: the model does not take the image size, or a form cannot be made.
    """
    alone = build.fused or not row.spiking
    forms: Iterable[Form] = ("as-coded",) if alone else FORMS
    reports: dict[Form, OperationReport] = {}
    for form in forms:
        with Progress(f"{row.id}, {form}", count) as progress:
            try:
                reports[form] = profile_operations(
                    in_form(counted.model, form),
                    until_counted(counted.batches(count), count, counted.images_of),
                    images=counted.images_of,
                    forward=counted.forward,
                    time_steps=counted.time_steps,
                    form=form,
                    progress=progress.update,
                )
            except ValueError as error:  # an image size that the model does not take
                raise UserError(f"{row.id}: {error}") from error
    return reports

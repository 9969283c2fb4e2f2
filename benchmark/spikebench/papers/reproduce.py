"""Reproduces published tables: a measured figure beside each reported one."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile

from spikebench.backbones import list_backbones
from spikebench.energy.estimators import energies, load_estimators
from spikebench.energy.operations import OperationReport
from spikebench.environment import commit, device_name, package_versions
from spikebench.errors import UserError
from spikebench.files import data_root as default_data_root
from spikebench.forms import Form
from spikebench.papers.building import (
    assign_weights,
    build_model,
    probed,
    resolve,
    time_steps_of,
)
from spikebench.papers.implied_rates import PAPER_ESTIMATOR, implied_rates, mean_rate
from spikebench.papers.operation_counts import RowCounter, RowCounts, count_forms
from spikebench.papers.record import FigureSpec, Measured, ReproducedRow, Reproduction
from spikebench.papers.reported import (
    Build,
    ClassifierBuild,
    PaperTable,
    Score,
    TableRow,
    TaskBuild,
    TimmBuild,
)
from spikebench.task import Run, Task, packages_of
from spikebench.weights.loading import read_weights

log = logging.getLogger("spikebench")

ANN_ESTIMATOR = "dense-45nm"
VALUE_FREE_RULES = ("dense", "rate")
"""Rules that charge every multiply-accumulate of an ANN, whatever it reads."""
COUNTED_IMAGES = 8
"""Images that energies are counted on without a `limit`."""

ALWAYS = {
    "params_m": FigureSpec(title="Parameters", unit="M"),
    "dense_gmacs": FigureSpec(title="Dense MACs", unit="G"),
}
"""What is measured of every row that can be built, in any table."""


@dataclass(frozen=True)
class Resources:
    """Data and weights that a table is measured with.

    Attributes:
        data_root: holds one folder a data set.
        weights: files by row id.
        limit: use at most this many images; None counts on `COUNTED_IMAGES`, and scores on all.
        work_dir: where logs of scoring land.
    """

    data_root: Path
    weights: Mapping[str, Path] = field(default_factory=dict)
    limit: int | None = None
    work_dir: Path = Path("work_dirs/reproduce")


def reproduce(
    table: PaperTable,
    *,
    weights: Sequence[str] = (),
    rows: Sequence[str] = (),
    limit: int | None = None,
    work_dir: Path = Path("work_dirs/reproduce"),
    data_root: Path | None = None,
) -> Reproduction:
    """Measure what can be measured of a published table.

    Args:
        table: as `load_table` gives it.
        weights: files, or `ROW=FILE`; see `assign_weights`.
        rows: ids or models of the rows to reproduce; all without.
        limit: use at most this many images.
        work_dir: where the caller writes, and logs of scoring land.
        data_root: the folder that holds one folder per data set; None takes $SPIKEBENCH_DATA, or
            `data` in the working directory.

    Returns:
        The rows side by side with what was measured. A row that cannot be built or scored says
        why; the others go on.

    Raises:
        UnknownNameError: there is no such row.
        WeightsError: weights do not fit, or fit several rows.
        EstimatorError: a file of estimators is missing or wrong.
        OSError: `work_dir` cannot be written.
    """
    started = datetime.now(UTC).isoformat(timespec="seconds")
    chosen = table.select(list(rows))
    load_estimators()  # what is wrong with them is said before, not after the work
    resources = Resources(
        default_data_root(data_root), assign_weights(table, chosen, weights), limit, work_dir
    )
    work_dir.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=work_dir):  # what cannot be written is said before, not after the work
        pass
    measuring = _Measuring(table, resources)
    reproduced = []
    for number, row in enumerate(chosen, 1):
        log.info("[%d/%d] %s", number, len(chosen), row.id)
        reproduced.append(measuring.row(row))
    own = {name: figure.spec for name, figure in table.figures.items()}
    return Reproduction(
        table=table.name,
        title=table.title,
        figures={**own, **{name: spec for name, spec in ALWAYS.items() if name not in own}},
        rows=reproduced,
        images="; ".join(dict.fromkeys(measuring.images)),
        commit=commit(),
        packages=package_versions(*packages_of(_tasks_of(table, chosen))),
        device=device_name(),
        started=started,
    )


def _tasks_of(table: PaperTable, rows: Sequence[TableRow]) -> list[str]:
    """The tasks that build or score these rows."""
    tasks = {row.build.task for row in rows if isinstance(row.build, TaskBuild)}
    return sorted(tasks | {table.score.task} if table.score else tasks)


class _Measuring:
    """Measures rows; those that share a build share its count."""

    def __init__(self, table: PaperTable, resources: Resources) -> None:
        self.table = table
        self.resources = resources
        self.images: list[str] = []
        self._count = RowCounter(table)

    def row(self, row: TableRow) -> ReproducedRow:
        """Measure one row."""
        reported = self.table.reported(row)
        names = list(dict.fromkeys([*reported.figures, *ALWAYS]))
        if row.build is None:
            return ReproducedRow(reported=reported, measured=_missing(names, _no_build(row)))
        try:
            counts = self._count(row, row.build)
        except UserError as error:
            return ReproducedRow(reported=reported, measured=_missing(names, _line(error)))
        measured = {
            **_missing(names, "nothing here measures it"),
            "params_m": _found(counts.parameters / 1e6, "those of the model built here"),
            "dense_gmacs": _found(
                counts.reports["as-coded"].dense_macs / 1e9,
                "per image and time step, padded positions counted, products of activations "
                "included",
            ),
        }
        energy, energy_mj, measured_rates = self._energy(row, row.build, counts)
        scored = self._scores(row, row.build, reported.figures)
        return ReproducedRow(
            reported=reported,
            measured={name: {**measured, "energy_mj": energy, **scored}[name] for name in names},
            dense_gmacs={}
            if row.build.fused
            else {form: report.dense_macs / 1e9 for form, report in counts.reports.items()},
            implied_rates=implied_rates(row, counts),
            energy_mj=energy_mj,
            measured_rates=measured_rates,
        )

    def _energy(
        self, row: TableRow, build: Build, counts: RowCounts
    ) -> tuple[Measured, dict[str, float], dict[Form, float]]:
        """The energy in the sense of the papers, energies by estimator, and rates by form."""
        if isinstance(build, TimmBuild):
            energy_mj = _energies_without_values(counts.reports["as-coded"])
            how = (
                f"{ANN_ESTIMATOR} on an ANN with random weights: every multiply-accumulate is "
                "charged, whatever it reads"
            )
            return _found(energy_mj[ANN_ESTIMATOR], how), energy_mj, {}
        if build.fused:
            return _not_here("the row is about a form of the model, not its energy"), {}, {}
        weights = self.resources.weights.get(row.id)
        if weights is None:
            return _not_here("no weights were given"), {}, {}
        try:
            reports, images = self._reports_with_weights(row, build, weights)
        except UserError as error:
            return _not_here(_line(error)), {}, {}
        self.images.append(images)
        energy_mj = energies(*reports.values())
        charged = _found(energy_mj[PAPER_ESTIMATOR], f"{PAPER_ESTIMATOR} on {images}")
        return charged, energy_mj, {form: mean_rate(report) for form, report in reports.items()}

    def _reports_with_weights(
        self, row: TableRow, build: Build, weights: Path
    ) -> tuple[dict[Form, OperationReport], str]:
        count = self.resources.limit or COUNTED_IMAGES
        folder = self._data()
        if isinstance(build, TaskBuild) and folder is not None:
            run, task = self._run(row, build)
            counted = probed(row, task.probe(run, weights), f"images of {folder}")
        else:
            state = read_weights(weights)
            counted = build_model(self.table, row, time_steps_of(row), state, folder)
        reports = count_forms(row, build, counted, count)
        images = _numbered(reports["as-coded"].images, counted.images)
        return reports, images if folder or not self.table.data else f"{images}, for want of data"

    def _scores(self, row: TableRow, build: Build, reported: Iterable[str]) -> dict[str, Measured]:
        """Measure the reported figures that are metrics of a task."""
        figures = self.table.figures
        metrics = {name: figures[name].metric for name in reported if figures[name].metric}
        missing = self._missing_for_scores(row, build)
        if missing or not metrics:
            return _missing(metrics, missing)
        try:
            run, task = self._run(row, build)
            evaluation = task.evaluate(run, self.resources.weights[row.id])
        except UserError as error:
            return _missing(metrics, _line(error))
        of = f"{evaluation.dataset.test_samples} images of {evaluation.dataset.name}"
        scored = {}
        for name, metric in metrics.items():
            if metric in evaluation.metrics:
                fraction = task.metrics[metric].unit == "fraction"
                scale = 100 if fraction and figures[name].unit == "%" else 1
                value = evaluation.metrics[metric] * scale
                scored[name] = _found(value, f"{evaluation.dataset.split} split, {of}")
            else:
                scored[name] = _not_here(f"{run.protocol} scores no {metric}")
        return scored

    def _missing_for_scores(self, row: TableRow, build: Build) -> str:
        """What is missing to score a row; empty if nothing is."""
        if isinstance(build, TimmBuild):
            return "an ANN of timm is counted here, and not scored"
        if isinstance(build, ClassifierBuild) and (build.fused or self.table.score is None):
            return "the table does not say how it is scored"
        missing = [] if row.id in self.resources.weights else ["no weights were given"]
        if self.table.data is not None and self._data() is None:
            missing.append(f"no folder {self.resources.data_root / self.table.data}")
        return ", and ".join(missing)

    def _data(self) -> Path | None:
        """The folder of the table's test images, if it is there."""
        folder = self.resources.data_root / self.table.data if self.table.data else None
        return folder if folder is not None and folder.is_dir() else None

    def _run(self, row: TableRow, build: Build) -> tuple[Run, Task]:
        if isinstance(build, ClassifierBuild):
            build = _scoring(build, self.table.score)
        assert isinstance(build, TaskBuild)
        task, config = resolve(self.table, row, build)
        folder = self.resources.work_dir / self.table.name / row.id
        folder.mkdir(parents=True, exist_ok=True)
        return Run(
            key=row.id,
            suite=f"reproduce-{self.table.name}",
            backbone=build.backbone,
            task=build.task,
            protocol=build.config.stem,
            seed=0,
            config=config,
            folder=folder,
            tensorboard=folder / "tensorboard",
            limit=self.resources.limit,
            data_root=self.resources.data_root,
        ), task


def _energies_without_values(report: OperationReport) -> dict[str, float]:
    """The energies that do not depend on what the weights make of an image."""
    known = load_estimators()
    found = energies(report).items()
    return {name: energy for name, energy in found if known[name].rule in VALUE_FREE_RULES}


def _numbered(count: int, images: str) -> str:
    """How many images of which kind; the first word in s is the noun.

    >>> _numbered(1, "squares cut out of two photographs"), _numbered(8, "random images")
    ('1 square cut out of two photographs', '8 random images')
    """
    noun_alone = re.sub(r"s\b", "", images, count=1)
    return f"{count} {noun_alone if count == 1 else images}"


def _scoring(build: ClassifierBuild, score: Score | None) -> TaskBuild:
    """The task that scores a classifier; which heads it has, it tells from the weights."""
    assert score is not None
    return TaskBuild(
        task=score.task,
        config=score.config,
        backbone=build.backbone,
        arguments=build.arguments,
        overrides=score.overrides,
    )


def _no_build(row: TableRow) -> str:
    if row.model in list_backbones():
        return "the table does not say how to build it"
    return "no registered backbone of this name"


def _found(value: float, how: str) -> Measured:
    return Measured(value=value, status="measured", reason=how)


def _not_here(reason: str) -> Measured:
    return Measured(value=None, status="not measurable here", reason=reason)


def _missing(names: Iterable[str], reason: str) -> dict[str, Measured]:
    return {name: _not_here(reason) for name in names}


def _line(error: UserError) -> str:
    return " ".join(str(error).split())

"""Running a suite: skip what is finished, resume what was interrupted, record what fails."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from spikebench import distributed
from spikebench.energy.estimators import energies, energies_by_part, load_estimators
from spikebench.energy.operations import OperationReport
from spikebench.environment import commit, device_name, package_versions
from spikebench.errors import UserError
from spikebench.files import sha256
from spikebench.forms import RECORDED_FORMS, Form
from spikebench.neurons.backends import requested_backend
from spikebench.progress import FILE_LOG, Progress
from spikebench.results import Metric, Record, ResultStore
from spikebench.suites.plan import plan, plan_evaluation, recorded_config
from spikebench.suites.suite import PROFILE_IMAGES
from spikebench.task import Evaluation, Probe, Run, Task

log = logging.getLogger("spikebench")


@dataclass
class Outcome:
    """What `run_suite` did: titles of runs by status.

    Attributes:
        folder: the suite's folder below the work directory.
    """

    folder: Path
    finished: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def run_suite(
    path: str | Path,
    work_dir: Path,
    overrides: Sequence[str] = (),
    limit: int | None = None,
    data_root: Path | None = None,
) -> Outcome:
    """Run a suite; a failing run is recorded as failed while the others go on.

    In a `spikebench.distributed.launched` block, all processes train and score each run together;
    the main one decides what to run, counts operations and writes the records.

    Args:
        path: the suite's YAML file, or the name of one that comes with the package.
        work_dir: runs land in `work_dir/<suite>/<key>`.
        overrides: see `spikebench.suites.suite.load_suite`.
        limit: use only this many images of each split; the records are marked partial.
        data_root: the folder that holds one folder per data set; None takes $SPIKEBENCH_DATA, or
            `data` in the working directory.

    Raises:
        UserError: the suite or an override is wrong, `work_dir` cannot be written, or this process
            failed in a run that others cannot finish without it.
        KeyboardInterrupt: Ctrl-C or SIGTERM; finished records are whole, and running again resumes.
    """
    suite, runs = plan(path, work_dir, overrides, limit, data_root)
    outcome = Outcome(work_dir / suite.name)
    load_estimators()  # report a wrong one before training, not after
    requested_backend()
    processes = distributed.current()
    processes.on_main(lambda: _check_writable(outcome.folder))
    store = ResultStore(outcome.folder)
    with _interruptible() as interrupts:
        for number, (run, task) in enumerate(runs, 1):
            of = f"[{number}/{len(runs)}] {run.title}"
            processes.begin(f"{number}-{run.key}")
            if processes.from_main(partial(_is_finished, store, run.key)):
                log.info("%s: finished before (%s)", of, store.path(run.key))
                outcome.skipped.append(run.title)
                continue
            log.info("%s: running in %s", of, run.folder)
            record = _recorded(run, task, suite.profile_images, interrupts)
            failure = None if record.error is None else processes.fail(record.error)
            if failure is not None:
                record = record.model_copy(update={"error": failure.reason})
            alone = failure is not None and not failure.together
            if processes.is_main or alone:
                store.put(record)
            if alone:
                raise UserError(f"{run.title}: process {processes.rank} failed: {record.error}")
            if failure is not None:
                log.error("%s: failed: %s", of, failure.reason)
                outcome.failed.append(run.title)
            else:
                figures = ", ".join(f"{k} {m.value:.4f}" for k, m in record.metrics.items())
                log.info("%s: finished: %s", of, figures)
                outcome.finished.append(run.title)
            if interrupts:  # swallowed on its way, as in a `__del__`
                raise KeyboardInterrupt
    return outcome


def evaluate(
    config: str | Path, weights: Path, work_dir: Path, **options: Any
) -> tuple[Path, Record]:
    """Score given weights under a configuration, and count their operations.

    Args:
        config: a configuration of a task, or the name of one that comes with the package.
        weights: a checkpoint of this suite or published weights.
        work_dir: the record lands in `work_dir/evaluate/<key>`.
        **options: see `spikebench.suites.plan.plan_evaluation`.

    Returns:
        Where the record lies, and the record.

    Raises:
        UserError: the configuration, the weights or the data are wrong.
    """
    run, task = plan_evaluation(config, weights, work_dir, **options)
    load_estimators()  # report a wrong one before scoring, not after
    requested_backend()
    _check_writable(work_dir / run.suite)
    with _interruptible() as interrupts:
        record = _recorded(run, task, PROFILE_IMAGES, interrupts, weights)
    if record.error is not None:
        raise UserError(record.error)
    return ResultStore(work_dir / run.suite).put(record), record


def _is_finished(store: ResultStore, key: str) -> bool:
    done = store.get(key)
    return done is not None and done.status == "finished"


def _recorded(
    run: Run,
    task: Task,
    profile_images: int,
    interrupts: Sequence[int],
    weights: Path | None = None,
) -> Record:
    """Do one run, or score given weights; a failure is recorded, not raised."""
    processes = distributed.current()
    run.folder.mkdir(parents=True, exist_ok=True)
    devices = f"{processes.count} x " if processes.count > 1 else ""
    about: dict[str, Any] = {
        "key": run.key,
        "suite": run.suite,
        "backbone_name": run.backbone,
        "task": run.task,
        "protocol": run.protocol,
        "seed": run.seed,
        "partial": run.limit is not None,
        "packages": package_versions(*task.packages),
        "commit": commit(),
        "device": f"{devices}{device_name()}",
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    try:
        about["config"] = recorded_config(task, run.config)
        with _log_to(run.folder / "run.log" if processes.is_main else Path(os.devnull)):
            results = _results(run, task, profile_images, weights)
            return Record(status="finished", **about, **results)
    except Exception as error:
        if interrupts:  # torch.save and other libraries turn it into other exceptions
            raise KeyboardInterrupt from error
        message = " ".join(str(error).split())
        trace = run.folder / ("error.log" if processes.is_main else f"error.{processes.rank}.log")
        if processes.is_main or not isinstance(error, UserError):
            trace.write_text(traceback.format_exc(), encoding="utf-8")
        if not isinstance(error, UserError):
            message = f"{type(error).__name__}: {message} (see {trace})"
        return Record(status="failed", error=message, **about)


def _results(
    run: Run, task: Task, profile_images: int, weights: Path | None = None
) -> dict[str, Any]:
    """Train (unless there are weights), score and count: the fields of a finished record.

    Empty in processes other than the main one.
    """
    processes = distributed.current()
    if processes.count > 1 and not task.distributed:
        raise UserError(
            f"{run.task} runs in one process, and there are {processes.count}; "
            "run its suite without torchrun or srun"
        )
    seconds: dict[str, float] = {}
    resumed = bool(task.checkpoints(run.folder))
    with processes.group():
        if weights is None:
            with _timed(seconds, "train"):
                checkpoint = task.train(run)
        else:
            checkpoint = weights
        with _timed(seconds, "evaluate"):
            evaluation: Evaluation = task.evaluate(run, checkpoint)

    def measured() -> dict[str, Any]:
        with _timed(seconds, "profile"):
            counted = _profile(run, task, checkpoint, evaluation, profile_images)
        return {
            **counted,
            "dataset": evaluation.dataset,
            "metrics": _metrics(run, task, evaluation),
            "per_class": evaluation.per_class,
            "by_time_steps": evaluation.by_time_steps,
            "checkpoint_sha256": sha256(checkpoint),
            "resumed": resumed,
            "wall_time_s": seconds,
        }

    return processes.on_main(measured) or {}


def _profile(
    run: Run, task: Task, checkpoint: Path, evaluation: Evaluation, profile_images: int
) -> dict[str, Any]:
    """The trained model's size, operations and energy."""
    from spikebench.energy.batches import until_counted
    from spikebench.energy.meters import measured_mj_per_image

    probe: Probe = task.probe(run, checkpoint)
    images = min(profile_images, evaluation.dataset.test_samples) * probe.views
    forms = dict.fromkeys([*RECORDED_FORMS, *(one.form for one in load_estimators().values())])
    reports = {form: _counted(run, probe, images, form) for form in forms}
    batches = until_counted(probe.batches, images, probe.images)
    return {
        "backbone": probe.backbone,
        "parameters": sum(weight.numel() for weight in probe.model.parameters()),
        "operations": reports["as-coded"],
        "paper_operations": reports["paper"],
        "views": probe.views,
        "energy_mj": _of_all(probe.views, energies(*reports.values())),
        "energy_by_part": {
            name: _of_all(probe.views, parts)
            for name, parts in energies_by_part(*reports.values()).items()
        },
        "measured_energy_mj": _of_all(
            probe.views,
            measured_mj_per_image(probe.model, batches, probe.forward, images=probe.images),
        ),
    }


def _of_all(views: int, energy: dict[str, float]) -> dict[str, float]:
    """Energy per image from energy per view."""
    return {name: views * millijoules for name, millijoules in energy.items()}


def _metrics(run: Run, task: Task, evaluation: Evaluation) -> dict[str, Metric]:
    """The task's metrics with unit and direction; other values are dropped."""
    specs = task.metrics
    if not specs.keys() & evaluation.metrics.keys():
        raise UserError(
            f"configuration {run.protocol!r} scores {', '.join(evaluation.metrics) or 'nothing'}; "
            f"expected metrics of {run.task}: {', '.join(specs)}"
        )
    return {
        name: Metric(
            value=value,
            unit=specs[name].unit,
            higher_is_better=specs[name].higher_is_better,
            interval=evaluation.intervals.get(name),
        )
        for name, value in evaluation.metrics.items()
        if name in specs
    }


def _counted(run: Run, probe: Probe, images: int, form: Form) -> OperationReport:
    """The operations of a trained model in one form; what has no counting rule is warned of."""
    from spikebench.energy.batches import until_counted
    from spikebench.energy.profile import profile_operations
    from spikebench.inference.deploy import in_form

    with Progress(f"{run.title} profile {form}", images) as progress:
        report = profile_operations(
            in_form(probe.model, form),
            until_counted(probe.batches, images, probe.images),
            images=probe.images,
            forward=probe.forward,
            time_steps=probe.backbone.time_steps,
            form=form,
            progress=progress.update,
        )
    for row in report.uncounted:
        if row.reason == "no rule":
            log.warning("%s: not counted: %s in %s", run.title, row.operation, row.name)
    return report


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"cannot write to {folder}: {error.strerror}; choose another --work-dir"
        ) from error


@contextlib.contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    seconds[phase] = round(time.monotonic() - start, 3)


@contextlib.contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Keep log lines and Python warnings of a run in a file; only ours go to the screen."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers = [logging.getLogger("spikebench"), FILE_LOG, logging.getLogger("py.warnings")]
    logging.captureWarnings(True)
    loggers[-1].propagate = False
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        loggers[-1].propagate = True
        logging.captureWarnings(False)
        handler.close()


@contextlib.contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Raise KeyboardInterrupt on Ctrl-C and on SIGTERM, which schedulers send.

    Yields:
        The signals so far. Libraries swallow the exception or turn it into another; the list tells
        an interruption from a failure.
    """
    signals: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return

    def interrupt(number: int, _: Any) -> None:
        signals.append(number)
        raise KeyboardInterrupt

    handled = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        handled.append(signal.SIGINT)  # a shell's background process ignores it
    before = {number: signal.signal(number, interrupt) for number in handled}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

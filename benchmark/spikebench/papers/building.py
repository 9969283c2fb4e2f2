"""Models of the rows of published tables, with weights where there are any."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from spikebench.backbones import build_backbone, build_classifier, list_backbones
from spikebench.backbones.options import input_channels
from spikebench.errors import UserError
from spikebench.images import about_images, sample_images
from spikebench.inference.deploy import deploy
from spikebench.papers.reported import ClassifierBuild, PaperTable, TableRow, TaskBuild, TimmBuild
from spikebench.registry import TASKS, unknown_name
from spikebench.task import Probe, Task
from spikebench.weights.loading import WeightsError, load_weights, read_weights

State = Mapping[str, Any]


class CountedModel(NamedTuple):
    """A model, and what its operations are counted on.

    Attributes:
        forward: runs the model on a batch; None calls it.
        batches: `batches(n)` yields batches of about n images in all.
        images: what they are, in words.
        time_steps: T, as the model was built.
        images_of: gives the images of a batch; None where a batch is a tensor `(B, ...)`.
    """

    model: nn.Module
    forward: Callable[[Any, Any], Any] | None
    batches: Callable[[int], Iterable[Any]]
    images: str
    time_steps: int
    images_of: Callable[[Any], Any] | None = None


def build_model(
    table: PaperTable,
    row: TableRow,
    time_steps: int,
    state: State | None = None,
    folder: Path | None = None,
) -> CountedModel:
    """The model of a row.

    Args:
        table: its table.
        row: one with a `build`.
        time_steps: T.
        state: weights, or None for random ones.
        folder: of images to count on, or None for what comes with this project; the model of a
            task is counted on random ones.

    Raises:
        UserError: it cannot be built as the table says, or the weights do not fit.
    """
    build = row.build
    assert build is not None
    if isinstance(build, TaskBuild):
        task, config = resolve(table, row, build)
        probe = task.sketch(config)
        if state is not None:
            load_weights(probe.model, state)
        return probed(row, probe, "random images")
    channels = 3
    if isinstance(build, TimmBuild):
        model = _timm_model(build)
    else:
        model = _classifier(build, time_steps, state)
        channels = build.arguments.get("in_channels") or input_channels(build.backbone)
    size = row.image_size or table.image_size
    return CountedModel(
        model,
        None,
        lambda count: sample_images(count, size, channels, folder),
        about_images(channels, folder),
        time_steps,
    )


def probed(row: TableRow, probe: Probe, images: str) -> CountedModel:
    """The model of a task.

    Raises:
        UserError: its configuration has another T than the row.
    """
    steps = probe.backbone.time_steps
    if steps != row.time_steps:
        raise UserError(
            f"the configuration builds T = {steps}, but row {row.id} has T = {row.time_steps}; "
            "let an override of the build set it to {time_steps}"
        )
    return CountedModel(
        probe.model, probe.forward, lambda _: probe.batches, images, steps, probe.images
    )


def resolve(table: PaperTable, row: TableRow, build: TaskBuild) -> tuple[Task, dict[str, Any]]:
    """The task that a build names, and its configuration with backbone and overrides put in."""
    task: Task = TASKS.get(build.task)()
    values = {"time_steps": row.time_steps, "image_size": row.image_size or table.image_size}
    overrides = list(build.overrides)
    for name, value in values.items():
        overrides = [each.replace(f"{{{name}}}", str(value)) for each in overrides]
    config = table.path.parent / build.config
    return task, task.resolve(config, build.backbone, build.arguments, overrides)


def _classifier(build: ClassifierBuild, time_steps: int, state: State | None) -> nn.Module:
    if build.backbone not in list_backbones():
        raise unknown_name("backbone", build.backbone, list_backbones())
    try:
        if build.num_classes is None:
            model = build_backbone(build.backbone, time_steps=time_steps, **build.arguments)
        else:
            model = build_classifier(
                build.backbone, build.num_classes, time_steps, build.distillation, **build.arguments
            )
        if state is not None:
            load_weights(model, state)
        if build.deploy is None:
            return model
        return deploy(model, build.deploy.fold_norms, build.deploy.fuse)
    except (TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{build.backbone}: {error}") from error


def _timm_model(build: TimmBuild) -> nn.Module:
    import timm

    if not timm.is_model(build.timm):
        raise unknown_name("model of timm", build.timm, timm.list_models())
    try:
        return timm.create_model(build.timm, pretrained=False, **build.arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"{build.timm}: {error}") from error


def assign_weights(
    table: PaperTable, rows: Sequence[TableRow], given: Sequence[str]
) -> dict[str, Path]:
    """Which weights belong to which row.

    Args:
        table: the table.
        rows: those of its rows that are reproduced.
        given: files, or `ROW=FILE`. A file alone belongs to the one row whose model it fits.

    Returns:
        Files by row id.

    Raises:
        UnknownNameError: there is no such row; near ones are suggested.
        WeightsError: a file cannot be read, fits no row or several, or not the one that is named,
            or that one cannot be built.
    """
    takers = {row.id: row for row in rows if row.spiking and row.build and not row.build.fused}
    if given and not takers:
        raise WeightsError(f"no row of {table.name} takes weights, among those that are reproduced")
    assigned: dict[str, Path] = {}
    for each in given:
        name, equals, file = each.partition("=")
        if not equals or Path(each).is_file():
            path = Path(each)
            name = _only_row_that_fits(table, takers.values(), path)
        else:
            path = Path(file)
            if name not in takers:
                raise unknown_name(f"row of {table.name} that takes weights", name, takers)
            _load(table, takers[name], path, read_weights(path))
        if name in assigned:
            raise WeightsError(f"{assigned[name]} and {path} are both for {name}; give it one")
        assigned[name] = path
    return assigned


def _only_row_that_fits(table: PaperTable, rows: Iterable[TableRow], path: Path) -> str:
    state = read_weights(path)
    found: dict[str, WeightsError | None] = {}
    for row in rows:
        try:
            _load(table, row, path, state)
            found[row.id] = None
        except WeightsError as error:
            found[row.id] = error
    fitting = [name for name, error in found.items() if error is None]
    if len(fitting) > 1:
        raise WeightsError(
            f"{path} fits {', '.join(fitting)}: say which row it is of, as in "
            f"--weights {fitting[0]}={path}"
        )
    if not fitting:
        raise WeightsError(_fits_none(table, path, [e for e in found.values() if e is not None]))
    return fitting[0]


def _fits_none(table: PaperTable, path: Path, errors: Sequence[WeightsError]) -> str:
    if len(errors) == 1:
        return str(errors[0])
    return (
        f"{path} fits none of the {len(errors)} rows of {table.name} that take weights; name the "
        f"row to see why: --weights ROW={path}"
    )


def _load(table: PaperTable, row: TableRow, path: Path, state: State) -> None:
    """Load weights into the model of a row, to see whether they fit."""
    try:
        build_model(table, row, time_steps_of(row), state)
    except WeightsError as error:
        text = str(error).removeprefix("the given weights do not fit ")
        raise WeightsError(f"{path} does not fit row {row.id}, {text}") from None
    except UserError as error:
        raise WeightsError(f"row {row.id} cannot be built: {error}") from error


def time_steps_of(row: TableRow) -> int:
    """T of a row that is built; an ANN sees an image once."""
    return row.time_steps if isinstance(row.time_steps, int) else 1

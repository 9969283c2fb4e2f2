"""The verb that scores given weights: evaluate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spikebench.cli.app import (
    ConfigOverrides,
    DataRoot,
    TaskName,
    app,
    new_table,
    task_of,
    terminal,
)

if TYPE_CHECKING:
    from spikebench.results import Record


@app.command(epilog="Example: spikebench evaluate imagenet --weights 15m.pth")
def evaluate(
    config: Annotated[Path, typer.Argument(help="A task's configuration: its file or name.")],
    weights: Annotated[
        Path, typer.Option(help="A checkpoint of a run, or published weights (.pth, .safetensors).")
    ],
    data_root: DataRoot = None,
    set_: ConfigOverrides = None,
    image_size: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            help="Score at this resolution, if the task has a single image size; may be repeated.",
        ),
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="A registered backbone; default the configuration's.")
    ] = None,
    task: TaskName = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Use only N images; the record is marked partial.")
    ] = None,
    work_dir: Annotated[Path, typer.Option(help="Records land in WORK_DIR/evaluate/<key>.")] = Path(
        "work_dirs"
    ),
) -> None:
    """Score weights on the test split, count their operations, and write a record of both.

    Nothing is trained. Accuracies come with 95 % intervals, and for T > 1 also after each of the
    time steps of one pass. `spikebench report WORK_DIR/evaluate` makes tables of the records.
    """
    from spikebench.suites import runner

    name = task_of(task, config)
    sizes: list[int | None] = [*image_size] if image_size else [None]
    for size in sizes:
        path, record = runner.evaluate(
            config,
            weights,
            work_dir,
            task_name=name,
            backbone=backbone,
            overrides=set_ or (),
            image_size=size,
            limit=limit,
            data_root=data_root,
        )
        if size is not None:
            print(f"resolution {size}")
        table = new_table("metric", "value", "95 % interval")
        for row in _rows(record):
            table.add_row(*row)
        terminal().print(table)
        print(f"record: {path}")


def _rows(record: Record) -> Iterator[tuple[str, str, str]]:
    for name, metric in record.metrics.items():
        interval = "" if metric.interval is None else "{:.4f} to {:.4f}".format(*metric.interval)
        yield name, f"{metric.value:.4f}", interval
    for name, values in record.by_time_steps.items():
        for steps, value in enumerate(values, 1):
            yield f"{name}, T = {steps}", f"{value:.4f}", ""
    for name, energy in record.energy_mj.items():
        yield f"energy, {name}", f"{energy:.4g} mJ", ""

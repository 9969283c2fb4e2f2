"""The verb that looks through data: check-data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

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

_SHOWN = 20


@app.command(
    "check-data",
    epilog="Example: spikebench check-data configs/detection/faster_rcnn_nano_bccd.py",
)
def check_data(
    config: Annotated[Path, typer.Argument(help="A configuration of detection or segmentation.")],
    data_root: DataRoot = None,
    set_: ConfigOverrides = None,
    task: TaskName = None,
) -> None:
    """Look through the data of a configuration, every file of them, before training on them.

    Errors name the file: images that are missing or do not decode, annotations and label maps that
    do not fit their image, the classes or the model. What is left out or has no effect is counted.
    A run looks through its data in the same way, unless they passed before and have not changed.

    Exits with 1 if there are errors.
    """
    if data_root is not None:
        os.environ["SPIKEBENCH_DATA"] = str(data_root)
    from spikebench.datacheck import first_errors
    from spikebench.registry import TASKS

    checks = TASKS.get(task_of(task, config))().check_data(config, set_ or [])
    table = new_table("split", "data set", "images", "annotations", "classes", "skipped", "errors")
    for one in checks:
        counts = (f"{count:,}" for count in (one.images, one.annotations, one.classes))
        table.add_row(one.split, one.dataset, *counts, one.skipped or "-", f"{len(one.errors):,}")
    terminal().print(table)
    errors, more = first_errors(checks, _SHOWN)
    for error in errors:
        print(error)
    if more:
        print(f"... and {more:,} more")
    if errors:
        raise typer.Exit(1)

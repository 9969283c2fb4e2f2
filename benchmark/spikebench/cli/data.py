"""The verb that looks through data: check-data."""

from __future__ import annotations

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
    from spikebench.task import Task

_SHOWN = 20


@app.command(
    "check-data",
    epilog="Example: spikebench check-data faster_rcnn_nano_bccd",
)
def check_data(
    config: Annotated[Path, typer.Argument(help="A task's configuration: its file or name.")],
    data_root: DataRoot = None,
    set_: ConfigOverrides = None,
    task: TaskName = None,
) -> None:
    """Check the data of a configuration, every file of it, before training on it.

    Errors name the file: images that are missing or do not decode, annotations and label maps that
    do not fit their image, the classes or the model. What is left out or has no effect is counted.
    A run looks through its data in the same way, unless they passed before and have not changed.

    Exits with 1 if there are errors.
    """
    from spikebench.datacheck import first_errors
    from spikebench.files import data_root as default_data_root
    from spikebench.registry import TASKS
    from spikebench.shipped import find_config

    found: Task = TASKS.get(task_of(task, config))()
    checks = found.check_data(find_config(config), set_ or [], default_data_root(data_root))
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

"""The command itself, and what its verbs share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spikebench.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from torch import nn

app = typer.Typer(
    help="Benchmark of spiking neural network vision backbones: one backbone, registered once, "
    "trained and scored on classification, detection and segmentation, its energy counted.",
    epilog="Example: spikebench run quickstart",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Options = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="OPTION=VALUE",
        help="An option of the backbone (`spikebench list backbones NAME`); may be repeated.",
    ),
]
ConfigOverrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key of the configuration; +KEY=VALUE adds one. May be repeated.",
    ),
]
TaskName = Annotated[
    str | None,
    typer.Option(help="The task; default the name of the folder that CONFIG lies in."),
]
DataRoot = Annotated[
    Path | None,
    typer.Option(help="Folder that holds one folder a data set; default $SPIKEBENCH_DATA or data."),
]


def given_options(overrides: list[str] | None) -> dict[str, Any]:
    """The arguments that `--set OPTION=VALUE` gives a backbone."""
    from spikebench.suites.overrides import parse_value, split_override

    pairs = map(split_override, overrides or [])
    return {name: parse_value(value) for name, value in pairs}


def built(build: Callable, name: str, weights: Path | None, **arguments: Any) -> nn.Module:
    """A backbone or classifier with its weights; options that do not fit are the user's error."""
    from spikebench.weights.loading import load_weights

    try:
        model = build(name, **arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name}: {error}") from error
    return model if weights is None else load_weights(model, weights)


def task_of(name: str | None, config: Path) -> str:
    """The task of that name, or of the folder that a configuration lies in."""
    from spikebench.registry import TASKS
    from spikebench.shipped import find_config
    from spikebench.task import ConfigError

    if name is not None:
        return name
    folder = find_config(config).absolute().parent.name
    if folder not in TASKS.names():
        raise ConfigError(
            f"{config} lies in {folder!r}, which is no task; say which it is with --task "
            f"({', '.join(TASKS.names())})"
        )
    return folder


def terminal() -> Console:
    """Where tables are printed."""
    from rich.console import Console

    # Where the output is no terminal, a table is as wide as it needs to be.
    return Console(width=None if sys.stdout.isatty() else 160, soft_wrap=False)


def new_table(*columns: str) -> Table:
    """An empty table with these headings."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table

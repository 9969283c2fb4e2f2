"""Verbs about one backbone: list, check, convert, export."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from spikebench.cli.app import Options, app, built, given_options, new_table, terminal
from spikebench.errors import UserError
from spikebench.forms import DEPLOY_FORMS, describe_forms
from spikebench.registry import unknown_name


@app.command("list", epilog="Example: spikebench list backbones 'meta_*'")
def list_(
    what: Annotated[
        str,
        typer.Argument(help="backbones, neurons, tasks, datasets, estimators, suites or configs."),
    ] = "backbones",
    pattern: Annotated[str, typer.Argument(help="A name, or a pattern such as 'sew_*'.")] = "*",
) -> None:
    """List the registered backbones with their options, or what else there is of a kind.

    Entries of other installed packages are included. Suites and configurations are those that come
    with this package; `run`, `evaluate` and `check-data` take their names.
    """
    if what not in _LISTS:
        raise unknown_name("list", what, _LISTS)
    _LISTS[what](pattern)


def _matching(kind: str, names: Iterable[str], pattern: str) -> list[str]:
    """The names that match a pattern; a wrong name is answered with near ones."""
    names = list(names)
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found and names:
        raise unknown_name(kind, pattern, names)
    return found


def _list_backbones(pattern: str) -> None:
    from rich.markup import escape

    from spikebench.backbones.options import option_tables
    from spikebench.registry import BACKBONES

    names = _matching("backbone", BACKBONES.names(), pattern)
    table = new_table("backbone", "about")
    for backbone in names:
        about = (inspect.getdoc(BACKBONES.get(backbone)) or "").split("\n")[0]
        table.add_row(backbone, escape(about))
    terminal().print(table)
    for backbones, options in option_tables(names):
        print(f"options of {', '.join(backbones)}:")
        table = new_table("option", "values", "default", "about")
        for option in options:
            table.add_row(*map(escape, option))
        terminal().print(table)


def _list_tasks(pattern: str) -> None:
    from spikebench.registry import TASKS

    table = new_table("task", "metrics")
    for task in _matching("task", TASKS.names(), pattern):
        table.add_row(task, ", ".join(TASKS.get(task)().metrics))
    terminal().print(table)


def _list_suites(pattern: str) -> None:
    from spikebench.shipped import shipped_suites

    _list_files("suite", shipped_suites(), pattern)


def _list_configs(pattern: str) -> None:
    from spikebench.shipped import shipped_configs

    _list_files("configuration", shipped_configs(), pattern)


def _list_files(kind: str, files: Mapping[str, Path], pattern: str) -> None:
    """Print names of files with what their first line says, and the folder that they lie in."""
    from rich.markup import escape

    table = new_table(kind, "about")
    for name in _matching(kind, files, pattern):
        first = files[name].read_text(encoding="utf-8").partition("\n")[0]
        table.add_row(name, escape(first.removeprefix("#").strip() if first[:1] == "#" else ""))
    terminal().print(table)
    print(f"files: {os.path.commonpath([path.parent for path in files.values()])}")


def _list_entries(kind: str, pattern: str) -> None:
    """The entries of a registry, with the first line of what they say of themselves."""
    from rich.markup import escape

    from spikebench import registry

    entries = getattr(registry, kind.upper())
    table = new_table(entries.kind, "about")
    for name in _matching(entries.kind, entries.names(), pattern):
        entry = entries.get(name)
        title = getattr(entry, "title", None)
        about = title if isinstance(title, str) else inspect.getdoc(entry) or ""
        table.add_row(name, escape(about.split("\n")[0]))
    terminal().print(table)


_LISTS: dict[str, Callable[[str], None]] = {
    "backbones": _list_backbones,
    "neurons": partial(_list_entries, "neurons"),
    "tasks": _list_tasks,
    "datasets": partial(_list_entries, "datasets"),
    "estimators": partial(_list_entries, "estimators"),
    "suites": _list_suites,
    "configs": _list_configs,
}


@app.command(epilog="Example: spikebench check meta_spikeformer_nano --set attention=sdsa1")
def check(
    name: Annotated[str, typer.Argument(help="A registered backbone.")],
    set_: Options = None,
) -> None:
    """Check that a backbone keeps the contract; exits with 1 if it does not."""
    from rich.markup import escape

    from spikebench.backbones.contract import check_backbone

    report = check_backbone(name, **given_options(set_))
    table = new_table("clause", "result", "reason", "place")
    for clause in report.clauses:
        result = "FAILED" if clause.result == "failed" else clause.result
        table.add_row(clause.name, result, escape(clause.reason), escape(clause.place))
    terminal().print(table)
    if not report.ok:
        raise typer.Exit(1)


@app.command(epilog="Example: spikebench convert 15M.pth meta_spikeformer_15m.safetensors")
def convert(
    source: Annotated[Path, typer.Argument(help="Weights in any layout that is known.")],
    destination: Annotated[Path, typer.Argument(help="A .safetensors file.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
) -> None:
    """Write weights as safetensors in this project's layout; published names are translated.

    Only tensors are read, and no code from the source is run.
    """
    from spikebench.weights.convert import convert_weights

    done = convert_weights(source, destination, force)
    print(f"{destination}: {done.tensors} tensors, {done.parameters:,} parameters")
    if done.left_out:
        print(f"left out: {done.left_out} tensors that are no part of the model")
    print(f"fits: {done.fits or 'no registered backbone by its default arguments'}")


@app.command(epilog="Example: spikebench export meta_spikeformer_15m 15m.onnx --weights 15m.pth")
def export(
    name: Annotated[str, typer.Argument(help="A registered backbone.")],
    destination: Annotated[Path, typer.Argument(help="An .onnx file.")],
    weights: Annotated[
        Path | None,
        typer.Option(help="Weights of the classifier, or of the backbone alone; random without."),
    ] = None,
    form: Annotated[str, typer.Option(help=f"{describe_forms(DEPLOY_FORMS)}.")] = "dense",
    time_steps: Annotated[int, typer.Option(min=1, help="T.")] = 1,
    image_size: Annotated[int, typer.Option(min=1, help="Pixels each side.")] = 224,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
    set_: Options = None,
) -> None:
    """Write the deploy form of a model as ONNX, for any batch, once onnxruntime agrees with it.

    Batch norms are folded, T and the image size fixed. Random weights are of 1000 classes.
    """
    from spikebench.backbones import build_backbone, build_classifier
    from spikebench.backbones.options import input_channels
    from spikebench.inference.export import export_onnx
    from spikebench.weights.loading import head_arguments

    if destination.suffix != ".onnx":
        raise UserError(f"destination {destination}; expected a name that ends in .onnx")
    if destination.exists() and not force:
        raise UserError(f"{destination} exists; use --force to replace it")
    head = {"num_classes": 1000} if weights is None else head_arguments(weights)
    build = build_classifier if head else build_backbone
    options = given_options(set_)
    model = built(build, name, weights, time_steps=time_steps, **head, **options)
    channels = options.get("in_channels") or input_channels(name)
    export_onnx(model, destination, (channels, image_size, image_size), form)
    print(f"{destination}: {form} form, T = {time_steps}, onnxruntime agrees with it")

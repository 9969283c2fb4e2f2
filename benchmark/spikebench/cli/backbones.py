"""Verbs about one backbone: list, check, convert, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spikebench.cli.app import Options, app, built, given_options, new_table, terminal
from spikebench.errors import UserError
from spikebench.forms import DEPLOY_FORMS, describe_forms


@app.command("list", epilog="Example: spikebench list backbones meta_spikeformer_15m")
def list_(
    what: Annotated[str, typer.Argument(help="backbones or tasks")] = "backbones",
    name: Annotated[str | None, typer.Argument(help="Only the one of this name.")] = None,
) -> None:
    """List the registered backbones with their options, or the tasks with their metrics.

    Those of other installed packages are included.
    """
    import inspect

    from rich.markup import escape

    from spikebench.registry import BACKBONES, TASKS, unknown_name

    if what == "tasks":
        table = new_table("task", "metrics")
        for task in [name] if name else TASKS.names():
            table.add_row(task, ", ".join(TASKS.get(task).metrics))  # type: ignore[attr-defined]
        terminal().print(table)
    elif what == "backbones":
        from spikebench.backbones import list_backbones
        from spikebench.backbones.options import option_tables

        names = [name] if name else list_backbones()
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
    else:
        raise unknown_name("list", what, ("backbones", "tasks"))


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

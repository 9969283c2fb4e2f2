"""The `spikebench` command. Heavy imports wait until a command needs them."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmark.errors import UserError
from benchmark.process import settle_process

if TYPE_CHECKING:
    from rich.table import Table
    from torch import nn

app = typer.Typer(
    help="Benchmark of spiking neural network vision backbones: one backbone, registered once, "
    "trained and scored on classification, detection and segmentation, its energy counted.",
    epilog="Example: spikebench run configs/suites/quickstart.yaml",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
leaderboard = typer.Typer(
    help="Build the leaderboard page.",
    epilog="Example: spikebench leaderboard build work_dirs/quickstart",
    no_args_is_help=True,
)
app.add_typer(leaderboard, name="leaderboard")

Options = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="OPTION=VALUE",
        help="An option of the backbone (`spikebench list backbones NAME`); may be repeated.",
    ),
]
WorkDir = Annotated[Path, typer.Option(help="Runs land in WORK_DIR/<suite>/<key>.")]
DataRoot = Annotated[
    Path | None,
    typer.Option(help="Folder that holds one folder a data set; default $SPIKEBENCH_DATA or data."),
]


@app.command(epilog="Example: spikebench run configs/suites/quickstart.yaml --set seeds=[0,1]")
def run(
    suite: Annotated[Path, typer.Argument(help="The suite's YAML file.")],
    work_dir: WorkDir = Path("work_dirs"),
    data_root: DataRoot = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override a key of the suite (seeds=[0,1]) or of the configurations of one of its "
            "tasks (detection.train_cfg.max_epochs=1); +KEY=VALUE adds a new key. May be repeated.",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Use only N images of each split; records are marked partial."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
) -> None:
    """Run a suite, skipping what is finished and resuming what was interrupted; print its tables.

    Exits with 1 if a run failed, 130 if interrupted.
    """
    if data_root is not None:
        os.environ["SPIKEBENCH_DATA"] = str(data_root)
    overrides = set_ or []
    if dry_run:
        _print_plan(suite, work_dir, overrides, limit)
        return
    from benchmark.report import print_tables, write_report
    from benchmark.runner import run_suite

    try:
        outcome = run_suite(suite, work_dir, overrides, limit)
    except KeyboardInterrupt:
        print("interrupted: finished records are whole; run again to go on", file=sys.stderr)
        raise typer.Exit(130) from None
    report = write_report(outcome.folder)
    print_tables(report.tables, _console())
    for path in report.paths:
        if path.name == "report.md":
            print(f"tables: {path}")
    print(
        f"runs: {len(outcome.finished)} finished, {len(outcome.skipped)} finished before, "
        f"{len(outcome.failed)} failed"
    )
    if outcome.failed:
        raise typer.Exit(1)


def _print_plan(suite: Path, work_dir: Path, overrides: list[str], limit: int | None) -> None:
    from benchmark.results import ResultStore
    from benchmark.suite import plan

    described, runs = plan(suite, work_dir, overrides, limit)
    store = ResultStore(work_dir / described.name)
    table = _table("key", "task", "backbone", "protocol", "seed", "state")
    for one, _ in runs:
        record = store.get(one.key)
        state = record.status if record else "started" if one.folder.exists() else "to do"
        table.add_row(one.key, one.task, one.backbone, one.protocol, str(one.seed), state)
    _console().print(table)


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

    from benchmark.registry import BACKBONES, TASKS, unknown_name

    if what == "tasks":
        table = _table("task", "metrics")
        for task in [name] if name else TASKS.names():
            table.add_row(task, ", ".join(TASKS.get(task).metrics))  # type: ignore[attr-defined]
        _console().print(table)
    elif what == "backbones":
        from benchmark.backbones import list_backbones
        from benchmark.backbones.options import option_tables

        names = [name] if name else list_backbones()
        table = _table("backbone", "about")
        for backbone in names:
            about = (inspect.getdoc(BACKBONES.get(backbone)) or "").split("\n")[0]
            table.add_row(backbone, escape(about))
        _console().print(table)
        for backbones, options in option_tables(names):
            print(f"options of {', '.join(backbones)}:")
            table = _table("option", "values", "default", "about")
            for option in options:
                table.add_row(*map(escape, option))
            _console().print(table)
    else:
        raise unknown_name("list", what, ("backbones", "tasks"))


@app.command(epilog="Example: spikebench check meta_spikeformer_nano --set attention=sdsa1")
def check(
    name: Annotated[str, typer.Argument(help="A registered backbone.")],
    set_: Options = None,
) -> None:
    """Check that a backbone keeps the contract; exits with 1 if it does not."""
    from rich.markup import escape

    from benchmark.backbones.contract import check_backbone

    report = check_backbone(name, **_options(set_))
    table = _table("clause", "result", "reason", "place")
    for clause in report.clauses:
        result = "FAILED" if clause.result == "failed" else clause.result
        table.add_row(clause.name, result, escape(clause.reason), escape(clause.place))
    _console().print(table)
    if not report.ok:
        raise typer.Exit(1)


@app.command(epilog="Example: spikebench profile meta_spikeformer_15m --time-steps 4")
def profile(
    name: Annotated[str, typer.Argument(help="A registered backbone.")],
    time_steps: Annotated[int, typer.Option(min=1, help="T.")] = 1,
    image_size: Annotated[int, typer.Option(min=1, help="Pixels each side.")] = 224,
    images: Annotated[int, typer.Option(min=1, help="How many random images.")] = 1,
    num_classes: Annotated[
        int, typer.Option(min=1, help="Classes of the classifier, where weights do not say.")
    ] = 1000,
    weights: Annotated[
        Path | None, typer.Option(help="Weights of the classifier; random without.")
    ] = None,
    set_: Options = None,
) -> None:
    """Count the operations of a backbone's classifier on random images, layer by layer.

    Dense counts hold for any input; rates and energies are those of noise: a suite's records hold
    the figures on real test images.
    """
    import torch

    from benchmark.backbones import build_classifier
    from benchmark.backbones.options import input_channels
    from benchmark.backbones.weights import head_arguments
    from benchmark.energy.counter import profile_operations
    from benchmark.energy.estimators import energies, load_estimators

    generator = torch.Generator().manual_seed(0)
    head = {} if weights is None else head_arguments(weights)
    options = _options(set_)
    arguments = {"num_classes": num_classes, **head, **options}
    model = _built(build_classifier, name, weights, time_steps=time_steps, **arguments)
    channels = options.get("in_channels") or input_channels(name)
    batches = (
        torch.randn(1, channels, image_size, image_size, generator=generator) for _ in range(images)
    )
    try:
        report = profile_operations(model, batches)
    except ValueError as error:  # an image size that the backbone does not take
        raise UserError(f"{name}: {error}") from error
    table = _table("operation", "kind", "values", "dense MMACs", "rate", "exact MSOPs")
    for row in report.rows:
        values = row.value_kind + (f" x {row.other_value_kind}" if row.other_value_kind else "")
        rate = f"{row.rate:.4f}" + (f" x {row.other_rate:.4f}" if row.other_rate else "")
        dense, exact = row.dense_macs / 1e6, row.exact_synaptic_operations / 1e6
        table.add_row(row.name, row.kind, values, f"{dense:.3f}", rate, f"{exact:.3f}")
    console = _console()
    console.print(table)
    parameters = sum(weight.numel() for weight in model.parameters())
    print(f"parameters: {parameters:,}")
    print(f"dense MACs per image and time step: {report.dense_macs:,.0f}")
    print(f"synaptic operations per image: {report.synaptic_operations:,.0f}")
    estimators = load_estimators()
    for estimator, millijoules in energies(report).items():
        print(f"energy {estimator}: {millijoules:.4f} mJ ({estimators[estimator].title})")


@app.command(epilog="Example: spikebench speed meta_spikeformer_15m --against spikingjelly")
def speed(
    name: Annotated[str, typer.Argument(help="A registered backbone.")],
    against: Annotated[
        str, typer.Option(help="What ratios are to: spikingjelly, or one of our backends.")
    ] = "",
    time_steps: Annotated[int, typer.Option(min=1, help="T.")] = 4,
    batch_size: Annotated[int, typer.Option(min=1, help="Images in a batch.")] = 4,
    image_size: Annotated[int, typer.Option(min=1, help="Pixels each side.")] = 224,
    num_classes: Annotated[int, typer.Option(min=1, help="Classes of the classifier.")] = 1000,
    mode: Annotated[
        list[str] | None, typer.Option(help="inference or train; may be repeated; default both.")
    ] = None,
    backends: Annotated[
        str, typer.Option(help="Forms of our neurons, as reference,compiled; default all.")
    ] = "",
    precision: Annotated[
        list[str] | None,
        typer.Option(help="float32 (default) or bfloat16 (autocast); may be repeated."),
    ] = None,
    channels_last: Annotated[
        list[bool] | None,
        typer.Option(
            "--channels-last/--no-channels-last", help="Layout of maps in memory; may be both."
        ),
    ] = None,
    form: Annotated[
        list[str] | None,
        typer.Option(
            help="Of the model in inference: as-coded (default), the deploy forms dense and "
            "paper, or event (dense, and convolutions that skip zeros); may be repeated."
        ),
    ] = None,
    grad_checkpointing: Annotated[
        bool, typer.Option("--grad-checkpointing", help="Also train with gradient checkpointing.")
    ] = False,
    layer: Annotated[
        bool, typer.Option("--layer", help="Also measure one LIF layer on (T, B, 128, 56, 56).")
    ] = False,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds, one turn each a contender.")] = 10,
    out: Annotated[Path, typer.Option(help="Where the record goes.")] = Path("work_dirs/speed"),
) -> None:
    """Measure inference and training in turns: speed, memory, and the distance to a dense floor.

    Exits with 1 if a contender failed, 130 if interrupted.
    """
    from benchmark.report import print_tables, work_tables
    from benchmark.speed.measure import measure_speed
    from benchmark.speed.plan import device_type, plan_contenders
    from benchmark.speed.record import Settings, write_speed_record

    settings = Settings(
        backbone_name=name,
        time_steps=time_steps,
        batch_size=batch_size,
        image_size=image_size,
        num_classes=num_classes,
        device=device_type(),
    )
    contenders = plan_contenders(
        settings.device,
        against,
        mode or (),
        backends.split(",") if backends else (),
        precision or (),
        form or (),
        channels_last or (),
        grad_checkpointing,
        layer,
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what schedulers send
    try:
        record = measure_speed(settings, contenders, repeats, against)
    except KeyboardInterrupt:
        print("interrupted: nothing was recorded", file=sys.stderr)
        raise typer.Exit(130) from None
    path = write_speed_record(record, out)
    print_tables(work_tables(path, record), _console(), hidden=())
    print(f"record: {path}")
    if record.failures:
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
    from benchmark.backbones.convert import convert_weights

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
    form: Annotated[
        str, typer.Option(help="dense: fastest on dense hardware; paper: all convolutions fused.")
    ] = "dense",
    time_steps: Annotated[int, typer.Option(min=1, help="T.")] = 1,
    image_size: Annotated[int, typer.Option(min=1, help="Pixels each side.")] = 224,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
    set_: Options = None,
) -> None:
    """Write the deploy form of a model as ONNX, for any batch, once onnxruntime agrees with it.

    Batch norms are folded, T and the image size fixed. Random weights are of 1000 classes.
    """
    from benchmark.backbones import build_backbone, build_classifier
    from benchmark.backbones.export import export_onnx
    from benchmark.backbones.options import input_channels
    from benchmark.backbones.weights import head_arguments

    if destination.suffix != ".onnx":
        raise UserError(f"destination {destination}; expected a name that ends in .onnx")
    if destination.exists() and not force:
        raise UserError(f"{destination} exists; use --force to replace it")
    head = {"num_classes": 1000} if weights is None else head_arguments(weights)
    build = build_classifier if head else build_backbone
    options = _options(set_)
    model = _built(build, name, weights, time_steps=time_steps, **head, **options)
    channels = options.get("in_channels") or input_channels(name)
    export_onnx(model, destination, (channels, image_size, image_size), form)
    print(f"{destination}: {form} form, T = {time_steps}, onnxruntime agrees with it")


@app.command(epilog="Example: spikebench report work_dirs/quickstart")
def report(
    work_dir: Annotated[Path, typer.Argument(help="A folder with result records.")],
    out: Annotated[
        Path | None, typer.Option(help="Where tables go; default WORK_DIR/report.")
    ] = None,
) -> None:
    """Write accuracy, detection, segmentation and energy tables (Markdown, CSV, LaTeX)."""
    from benchmark.report import print_tables, write_report

    written = write_report(work_dir, out)
    print_tables(written.tables, _console())
    for path in written.paths:
        print(path)


@leaderboard.command(epilog="Example: spikebench leaderboard build work_dirs/quickstart")
def build(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders with result records; default leaderboards/results."),
    ] = None,
    out: Annotated[Path, typer.Option(help="A folder, or an .html file.")] = Path(
        "leaderboards/site"
    ),
) -> None:
    """Make one self-contained HTML page of all records; partial and failed runs stay out."""
    from benchmark.report import build_site

    path = build_site(sources or [Path("leaderboards/results")], out)
    print(f"leaderboard: {path}")


@app.command(epilog="Example: spikebench doctor")
def doctor() -> None:
    """Say what this machine has, what is missing, and which package to install for it."""
    from benchmark.doctor import examine

    findings = examine()
    table = _table("what", "", "found", "to do")
    for one in findings:
        table.add_row(one.subject, "ok" if one.ok else "MISSING", one.found, one.remedy)
    _console().print(table)
    if not all(one.ok for one in findings):
        raise typer.Exit(1)


def _options(overrides: list[str] | None) -> dict[str, Any]:
    """The arguments that `--set OPTION=VALUE` gives a backbone."""
    from benchmark.overrides import parse_value, split_override

    pairs = map(split_override, overrides or [])
    return {name: parse_value(value) for name, value in pairs}


def _built(build: Callable, name: str, weights: Path | None, **arguments: Any) -> nn.Module:
    """A backbone or classifier with its weights; options that do not fit are the user's error."""
    from benchmark.backbones.weights import load_weights

    try:
        model = build(name, **arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name}: {error}") from error
    return model if weights is None else load_weights(model, weights)


def _console() -> Any:
    from rich.console import Console

    # Where the output is no terminal, a table is as wide as it needs to be.
    return Console(width=None if sys.stdout.isatty() else 160, soft_wrap=False)


def _table(*columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def main() -> None:
    """Run the command; a wrong request becomes one line and a non-zero exit."""
    settle_process()
    logger = logging.getLogger("spikebench")
    logger.setLevel(logging.INFO)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger.addHandler(handler)
    logger.propagate = False
    try:
        app()
    except (UserError, OSError) as error:  # the latter: a file or folder that cannot be written
        sys.exit(f"error: {' '.join(str(error).split())}")

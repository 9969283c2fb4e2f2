"""The `spikebench` command. Heavy imports wait until a command needs them."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmark.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

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


@app.command("list", epilog="Example: spikebench list backbones")
def list_(
    what: Annotated[str, typer.Argument(help="backbones or tasks")] = "backbones",
) -> None:
    """List the registered backbones or tasks, those of other installed packages included."""
    from benchmark.registry import BACKBONES, TASKS, unknown_name

    if what == "tasks":
        table = _table("task", "metrics")
        for name in TASKS.names():
            table.add_row(name, ", ".join(TASKS.get(name).metrics))  # type: ignore[attr-defined]
    elif what == "backbones":
        import inspect

        from benchmark.backbones import list_backbones

        table = _table("backbone", "about")
        for name in list_backbones():
            about = (inspect.getdoc(BACKBONES.get(name)) or "").split("\n")[0]
            table.add_row(name, about)
    else:
        raise unknown_name("list", what, ("backbones", "tasks"))
    _console().print(table)


@app.command(epilog="Example: spikebench check meta_spikeformer_nano")
def check(
    name: Annotated[str, typer.Argument(help="A registered backbone.")],
) -> None:
    """Check that a backbone keeps the contract; exits with 1 if it does not."""
    from benchmark.backbones.contract import check_backbone

    report = check_backbone(name)
    table = _table("clause", "result", "reason")
    for clause in report.clauses:
        table.add_row(clause.name, "passed" if clause.passed else "FAILED", clause.reason)
    _console().print(table)
    if not report.ok:
        raise typer.Exit(1)


@app.command(epilog="Example: spikebench profile meta_spikeformer_15m --time-steps 4")
def profile(
    name: Annotated[str, typer.Argument(help="A registered backbone.")],
    time_steps: Annotated[int, typer.Option(min=1, help="T.")] = 1,
    image_size: Annotated[int, typer.Option(min=1, help="Pixels each side.")] = 224,
    images: Annotated[int, typer.Option(min=1, help="How many random images.")] = 1,
    num_classes: Annotated[int, typer.Option(min=1, help="Classes of the classifier.")] = 1000,
    weights: Annotated[
        Path | None, typer.Option(help="Weights of the classifier; random without.")
    ] = None,
) -> None:
    """Count the operations of a backbone's classifier on random images, layer by layer.

    Dense counts hold for any input; rates and energies are those of noise: a suite's records hold
    the figures on real test images.
    """
    import torch

    from benchmark.backbones import build_classifier
    from benchmark.backbones.weights import load_weights
    from benchmark.energy.counter import profile_operations
    from benchmark.energy.estimators import energies, load_estimators

    generator = torch.Generator().manual_seed(0)
    model = build_classifier(name, num_classes, time_steps)
    if weights is not None:
        load_weights(model, weights)
    batches = (
        torch.randn(1, 3, image_size, image_size, generator=generator) for _ in range(images)
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
    # Idle OpenMP threads spin: beside another busy process, training was 100 times slower.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
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

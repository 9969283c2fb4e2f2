"""Verbs about runs and their records: run, report, leaderboard."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spikebench.cli.app import DataRoot, app, new_table, terminal

if TYPE_CHECKING:
    from spikebench.suites.runner import Outcome

leaderboard = typer.Typer(
    help="Build the leaderboard page.",
    epilog="Example: spikebench leaderboard build work_dirs/quickstart",
    no_args_is_help=True,
)
app.add_typer(leaderboard, name="leaderboard")

WorkDir = Annotated[Path, typer.Option(help="Runs land in WORK_DIR/<suite>/<key>.")]


@app.command(epilog="Example: spikebench run quickstart --set seeds=[0,1]")
def run(
    suite: Annotated[Path, typer.Argument(help="The suite: its YAML file or its name.")],
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
    launcher: Annotated[
        str | None,
        typer.Option(
            help="Who started the processes that do each run together: none, pytorch (torchrun) or "
            "slurm (srun); default pytorch under torchrun, else none."
        ),
    ] = None,
) -> None:
    """Run a suite, skipping what is finished and resuming what was interrupted; print its tables.

    Several processes, a device each, do a run together when started as
    `torchrun --nproc-per-node 2 -m spikebench run SUITE` or
    `srun --ntasks 2 --kill-on-bad-exit spikebench run SUITE --launcher slurm`; the batch size is
    that of a process.

    Exits with 1 if a run failed, 130 if interrupted.
    """
    overrides = set_ or []
    from spikebench.distributed import launched

    with launched(launcher) as processes:
        if dry_run:
            processes.on_main(lambda: _print_plan(suite, work_dir, overrides, limit, data_root))
            return
        from spikebench.suites.runner import run_suite

        try:
            outcome = run_suite(suite, work_dir, overrides, limit, data_root)
        except KeyboardInterrupt:
            if processes.is_main:
                line = "interrupted: finished records are whole; run again to go on"
                print(line, file=sys.stderr)
            raise typer.Exit(130) from None
        if processes.is_main:
            _print_outcome(outcome)
    if outcome.failed:
        raise typer.Exit(1)


def _print_outcome(outcome: Outcome) -> None:
    from spikebench.report import print_tables, write_report

    report = write_report(outcome.folder)
    print_tables(report.tables, terminal())
    for path in report.paths:
        if path.name == "report.md":
            print(f"tables: {path}")
    print(
        f"runs: {len(outcome.finished)} finished, {len(outcome.skipped)} finished before, "
        f"{len(outcome.failed)} failed"
    )


def _print_plan(
    suite: Path,
    work_dir: Path,
    overrides: list[str],
    limit: int | None,
    data_root: Path | None,
) -> None:
    from spikebench.results import ResultStore
    from spikebench.suites.plan import plan

    described, runs = plan(suite, work_dir, overrides, limit, data_root)
    store = ResultStore(work_dir / described.name)
    table = new_table("key", "task", "backbone", "protocol", "seed", "state")
    for one, _ in runs:
        record = store.get(one.key)
        state = record.status if record else "started" if one.folder.exists() else "to do"
        table.add_row(one.key, one.task, one.backbone, one.protocol, str(one.seed), state)
    terminal().print(table)


@app.command(epilog="Example: spikebench report work_dirs/quickstart")
def report(
    work_dir: Annotated[Path, typer.Argument(help="A folder with result records.")],
    out: Annotated[
        Path | None, typer.Option(help="Where tables go; default WORK_DIR/report.")
    ] = None,
) -> None:
    """Write a table per task, and one of energies (Markdown, CSV, LaTeX)."""
    from spikebench.report import print_tables, write_report

    written = write_report(work_dir, out)
    print_tables(written.tables, terminal())
    for path in written.paths:
        print(path)


@leaderboard.command(epilog="Example: spikebench leaderboard build work_dirs/quickstart")
def build(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders with result records; default the published ones."),
    ] = None,
    out: Annotated[Path, typer.Option(help="A folder, or an .html file.")] = Path(
        "leaderboards/site"
    ),
) -> None:
    """Make one self-contained HTML page of all records; partial and failed runs stay out."""
    from spikebench.report import build_site
    from spikebench.shipped import shipped_folder

    path = build_site(sources or [shipped_folder("leaderboards/results")], out)
    print(f"leaderboard: {path}")

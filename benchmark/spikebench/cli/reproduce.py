"""The verb that reproduces published tables: reproduce."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from spikebench.cli.app import DataRoot, app, terminal


@app.command(
    epilog="Example: spikebench reproduce imagenet --weights meta_spikeformer_55m-t4=55M.pth"
)
def reproduce(
    table: Annotated[
        str,
        typer.Argument(
            help="imagenet, coco, ade20k, voc, har-dvs, architecture, or a YAML file of your own."
        ),
    ],
    data_root: DataRoot = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[ROW=]FILE",
            help="Weights of a row; without ROW, of the only row that they fit. May be repeated.",
        ),
    ] = None,
    rows: Annotated[
        list[str] | None,
        typer.Option(metavar="ROW", help="Only this row, or model; may be repeated."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the record and the tables go.")] = Path(
        "work_dirs/reproduce"
    ),
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Count energy on N images (default 8), and score on no more."),
    ] = None,
) -> None:
    """Put a published table beside what is measured here: figure, difference, what is missing.

    Parameters and dense multiply-accumulates are always measured. Energy is measured with the
    weights given; without, the mean firing rate is solved that the reported energy implies, in
    each form of the model, and an ANN is charged for its multiply-accumulates. Accuracy needs
    weights and the data set.
    """
    from spikebench.papers.record import write_reproduction_record
    from spikebench.papers.reported import load_table

    loaded = load_table(table)
    from spikebench.papers import reproduce as reproducing
    from spikebench.report import print_tables, reproduction_tables, write_reproduction

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what schedulers send
    try:
        record = reproducing.reproduce(
            loaded,
            weights=weights or (),
            rows=rows or (),
            limit=limit,
            work_dir=out,
            data_root=data_root,
        )
    except KeyboardInterrupt:
        print("interrupted: nothing was recorded", file=sys.stderr)
        raise typer.Exit(130) from None
    path = write_reproduction_record(record, out)
    written = write_reproduction(path, record, out)
    print_tables(reproduction_tables(path, record), terminal(), hidden=())
    for each in (path, *written):
        print(f"written: {each}")

"""The verb that measures time and memory: speed."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from spikebench.cli.app import app, terminal
from spikebench.forms import describe_forms


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
            help=f"Of the model in inference: {describe_forms()}; event (dense, and convolutions "
            "that skip zeros). Default as-coded; may be repeated."
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
    from spikebench.report import print_tables, work_tables
    from spikebench.speed.measure import measure_speed
    from spikebench.speed.plan import device_type, plan_contenders
    from spikebench.speed.record import Settings, write_speed_record

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
    print_tables(work_tables(path, record), terminal(), hidden=())
    print(f"record: {path}")
    if record.failures:
        raise typer.Exit(1)

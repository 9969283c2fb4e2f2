"""The verb that checks whether a backbone is spike-driven: audit."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, get_args

import typer

from benchmark.cli.app import Options, app, built, given_options, terminal
from benchmark.errors import UserError

_SETTLED_ON = 4  # images: of a single one, norms of maps of one pixel have no variance
_RANDOM = f"random, batch norms settled on {_SETTLED_ON} images: without, few neurons would fire"


@app.command(epilog="Example: spikebench audit meta_spikeformer_15m --time-steps 4")
def audit(
    name: Annotated[str, typer.Argument(help="A registered backbone.")],
    time_steps: Annotated[int, typer.Option(min=1, help="T.")] = 1,
    image_size: Annotated[int, typer.Option(min=1, help="Pixels each side.")] = 224,
    images: Annotated[
        Path | None, typer.Option(help="Folder of images; two photographs are cut up without.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="How many images.")] = 2,
    num_classes: Annotated[
        int, typer.Option(min=1, help="Classes of the classifier, where weights do not say.")
    ] = 1000,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Weights of the classifier; without, random ones, batch norms settled on images."
        ),
    ] = None,
    set_: Options = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the files; default work_dirs/audit/NAME.")
    ] = None,
) -> None:
    """Say whether additions suffice for a backbone's classifier, in three forms of it.

    The forms: as coded; dense, with batch norms folded; and that of the papers, with convolutions
    in a row fused as well. For each it shows what multiplies, what reads integers and what is not
    counted; then the firing rates by layer and time step. Neurons are those of benchmark.neurons
    and modules that have a v_threshold.
    """
    import torch

    from benchmark.backbones import build_classifier
    from benchmark.backbones.deploy import in_form
    from benchmark.backbones.layers import settling_norms
    from benchmark.backbones.options import input_channels
    from benchmark.backbones.weights import head_arguments
    from benchmark.energy.counter import profile_operations
    from benchmark.energy.operations import Form
    from benchmark.environment import commit, device_name, package_versions
    from benchmark.images import about_images, sample_images
    from benchmark.progress import Progress
    from benchmark.report.audit import AuditRecord, AuditSettings, print_audit, write_audit

    torch.manual_seed(0)
    head = {} if weights is None else head_arguments(weights)
    options = given_options(set_)
    arguments = {"num_classes": num_classes, **head, **options}
    model = built(build_classifier, name, weights, time_steps=time_steps, **arguments)
    channels = options.get("in_channels") or input_channels(name)
    started = datetime.now(UTC).isoformat()
    sample = partial(sample_images, size=image_size, channels=channels, folder=images)
    reports = []
    try:
        if weights is None:
            with settling_norms(model), torch.no_grad():
                model.train()(torch.cat(list(sample(_SETTLED_ON))))
        for form in get_args(Form):
            with Progress(f"{name} {form}", count) as progress:
                report = profile_operations(
                    in_form(model, form), sample(count), form=form, progress=progress.update
                )
            reports.append(report)
    except ValueError as error:  # an image size that the backbone does not take
        raise UserError(f"{name}: {error}") from error
    record = AuditRecord(
        settings=AuditSettings(
            backbone_name=name,
            options=options,
            time_steps=time_steps,
            image_size=image_size,
            num_classes=arguments["num_classes"],
            images=about_images(channels, images),
            weights=_RANDOM if weights is None else weights.name,
            weights_sha256=None if weights is None else _sha256(weights),
        ),
        reports=reports,
        packages=package_versions(),
        commit=commit(),
        device=device_name(),
        started=started,
    )
    print_audit(record, terminal())
    for path in write_audit(record, out or Path("work_dirs/audit") / name):
        print(f"written: {path}")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

"""The verb that checks whether a backbone is spike-driven: audit."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from spikebench.cli import classifier_input
from spikebench.cli.app import Options, app, given_options, terminal
from spikebench.forms import FORMS


@app.command(epilog="Example: spikebench audit meta_spikeformer_15m --time-steps 4")
def audit(
    name: Annotated[str, typer.Argument(help="A registered backbone.")],
    time_steps: classifier_input.TimeSteps = 1,
    image_size: classifier_input.ImageSize = 224,
    images: classifier_input.Images = None,
    count: classifier_input.Count = 2,
    num_classes: classifier_input.NumClasses = 1000,
    weights: classifier_input.Weights = None,
    set_: Options = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the files; default work_dirs/audit/NAME.")
    ] = None,
) -> None:
    """Say whether additions suffice for a backbone's classifier, in three forms of it.

    The forms: as coded; dense, with batch norms folded; and that of the papers, with convolutions
    in a row fused as well. For each it shows what multiplies, what reads integers and what is not
    counted; then the firing rates by layer and time step. Neurons are those of spikebench.neurons
    and modules that have a v_threshold.
    """
    from spikebench.energy.profile import profile_operations
    from spikebench.environment import commit, device_name, package_versions
    from spikebench.files import sha256
    from spikebench.inference.deploy import in_form
    from spikebench.progress import Progress
    from spikebench.report.audit import AuditRecord, AuditSettings, print_audit, write_audit

    options = given_options(set_)
    started = datetime.now(UTC).isoformat()
    reports = []
    with classifier_input.wrong_requests(name):
        found = classifier_input.counted_classifier(
            name, options, weights, time_steps, num_classes, image_size, images
        )
        for form in FORMS:
            with Progress(f"{name} {form}", count) as progress:
                report = profile_operations(
                    in_form(found.model, form),
                    found.sample(count),
                    form=form,
                    progress=progress.update,
                )
            reports.append(report)
    record = AuditRecord(
        settings=AuditSettings(
            backbone_name=name,
            options=options,
            time_steps=time_steps,
            image_size=image_size,
            num_classes=found.num_classes,
            images=found.about_images,
            weights=found.about_weights,
            weights_sha256=None if weights is None else sha256(weights),
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

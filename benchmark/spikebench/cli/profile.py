"""The verb that counts operations: profile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from spikebench.cli import classifier_input
from spikebench.cli.app import Options, app, given_options, new_table, terminal
from spikebench.forms import describe_forms, known_form

if TYPE_CHECKING:
    from spikebench.energy.operations import OperationReport, OperationRow
    from spikebench.energy.overhead import Overhead


@app.command(epilog="Example: spikebench profile meta_spikeformer_15m --time-steps 4 --form paper")
def profile(
    name: Annotated[str, typer.Argument(help="A registered backbone.")],
    time_steps: classifier_input.TimeSteps = 1,
    image_size: classifier_input.ImageSize = 224,
    images: classifier_input.Images = None,
    count: classifier_input.Count = 1,
    num_classes: classifier_input.NumClasses = 1000,
    weights: classifier_input.Weights = None,
    set_: Options = None,
    form: Annotated[str, typer.Option(help=f"{describe_forms()}.")] = "as-coded",
    overhead: Annotated[
        bool, typer.Option("--overhead", help="Time counting against a plain pass, and stop.")
    ] = False,
) -> None:
    """Count the operations of a backbone's classifier, layer by layer, and their energy.

    Dense counts hold for any input; rates and energies are those of the images and weights: a
    suite's records hold the figures on real test images.
    """
    import torch

    from spikebench.energy.estimators import energies, load_estimators
    from spikebench.energy.overhead import measure_overhead
    from spikebench.energy.profile import profile_operations
    from spikebench.inference.deploy import in_form

    estimators = load_estimators()
    counted_form = known_form(form)
    options = given_options(set_)
    with classifier_input.wrong_requests(name):
        found = classifier_input.counted_classifier(
            name, options, weights, time_steps, num_classes, image_size, images
        )
        model = in_form(found.model, form)
        if overhead:
            _print_overhead(measure_overhead(model, torch.cat(list(found.sample(count)))), count)
            return
        report = profile_operations(model, found.sample(count), form=counted_form)
    _print_rows(report)
    parameters = sum(weight.numel() for weight in model.parameters())
    print(f"weights: {found.about_weights}")
    print(f"images: {report.images}, {found.about_images}")
    print(f"parameters: {parameters:,}")
    print(f"dense MACs per image and time step: {report.dense_macs:,.0f}")
    spread = report.synaptic_operations_std
    deviation = "" if spread is None else f" (± {spread:,.0f} over images)"
    print(f"synaptic operations per image: {report.synaptic_operations:,.0f}{deviation}")
    _print_neurons(report)
    _print_uncounted(report)
    for estimator, millijoules in energies(report).items():
        print(f"energy {estimator}: {millijoules:.4f} mJ ({estimators[estimator].title})")
    others = {id_: one.form for id_, one in estimators.items() if one.form != form}
    for other in dict.fromkeys(others.values()):
        named = ", ".join(id_ for id_, its in others.items() if its == other)
        print(f"with --form {other}: {named}")


def _print_overhead(measured: Overhead, count: int) -> None:
    ratios = measured.ratios
    print(f"a plain pass of {count} images: {min(measured.plain):.3f} s at best")
    print(
        f"counting: {measured.ratio:.2f} times a plain pass "
        f"({min(ratios):.2f} to {max(ratios):.2f} in {len(ratios)} rounds)"
    )


def _print_rows(report: OperationReport) -> None:
    table = new_table(
        "operation", "kind", "values", "dense MMACs", "rate", "± images", "exact MSOPs"
    )
    for row in report.rows:
        rate = f"{row.rate:.4f}" + (f" x {row.other_rate:.4f}" if row.other_rate else "")
        deviation = "" if row.rate_std is None else f"{row.rate_std:.4f}"
        dense, exact = row.dense_macs / 1e6, row.exact_synaptic_operations / 1e6
        table.add_row(
            row.name, row.kind, _values(row), f"{dense:.3f}", rate, deviation, f"{exact:.3f}"
        )
    terminal().print(table)


def _values(row: OperationRow) -> str:
    operands = [(row.value_kind, row.value_range), (row.other_value_kind, row.other_value_range)]
    return " x ".join(
        f"{kind} {limits[0]:g}..{limits[1]:g}" if kind == "integer" and limits else kind
        for kind, limits in operands
        if kind
    )


def _print_neurons(report: OperationReport) -> None:
    if not report.neurons:
        print("neurons: none; an ANN, charged as multiply-accumulates")
        return
    updates = sum(row.updates for row in report.neurons)
    state = sum(row.state_bytes for row in report.neurons)
    print(f"neuron updates per image: {updates:,.0f}, on {state / 1e6:.2f} MB of membranes")
    rates = [row.rates for row in report.neurons if row.rates]
    if rates:
        by_step = ", ".join(f"{sum(step) / len(rates):.4f}" for step in zip(*rates, strict=True))
        print(f"firing rate, mean over layers, by time step: {by_step}")


def _print_uncounted(report: OperationReport) -> None:
    without_rule = [row for row in report.uncounted if row.reason == "no rule"]
    elementwise = sum(
        row.multiplications or 0.0 for row in report.uncounted if row.reason == "elementwise"
    )
    share = elementwise / report.dense_work if report.dense_work else 0.0
    print(f"uncounted elementwise arithmetic (norms, scales): {share:.2%} of the dense work")
    for row in without_rule:
        known = row.multiplications
        amount = (
            "unknown" if known is None else f"{known / report.dense_work:.2%} of the dense work"
        )
        print(f"uncounted, as there is no rule: {row.name} {row.operation}, {amount}")

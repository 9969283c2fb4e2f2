"""How fast, and how complete, three counters are: one model, one batch, one process, in turns.

    python tests/benchmark/energy/peers.py meta_spikeformer_15m --image-size 224 --rounds 5

Ours, SpikingJelly 2.0's and NeuroBench 2.3's, next to a plain forward pass. The model is a
classifier of the zoo, whose convolutions and linear layers are modules, so that each of the three
finds them; its neurons are ours, or SpikingJelly's with the same spikes (`--neurons`). NeuroBench
asks for much that its counter does not use, so it is not among our dependencies, and is installed
without its own:

    pip install --no-deps --target ../peers neurobench==2.3.0 snntorch==1.0.0
    PYTHONPATH=../peers python tests/benchmark/energy/peers.py

Each is used at its fastest. All run without gradients, which NeuroBench's own loop does not see to.
NeuroBench hooks only convolutions and linear layers (`SynapticOperations` tells spikes from other
values by looking at them; a neuron class added to its model would only make it keep more tensors).
SpikingJelly answers what NeuroBench and we answer, accumulates where spikes are read and MACs
elsewhere, with `SynOpCounter` and `MACCounter` in one pass. It also runs with the former alone,
which says nothing of half the layers, and as the energy profiler, which counts the neurons too.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from spikebench.backbones import build_classifier
from spikebench.backbones.layers import settling_norms
from spikebench.backbones.options import input_channels
from spikebench.energy.operations import OperationReport, OperationRow
from spikebench.energy.profile import profile_operations
from spikebench.errors import UserError
from spikebench.speed.spikingjelly import replace_neurons, reset

PLAIN = "plain forward"
OURS = "spikebench"
SPIKINGJELLY = "SpikingJelly SynOps and MACs"
SYNOPS = "SpikingJelly SynOps alone"
ENERGY = "SpikingJelly energy profiler"
NEUROBENCH = "NeuroBench SynapticOperations"

ASKED = {NEUROBENCH: 5.0, SPIKINGJELLY: 1.5}
"""How many times as fast ours shall be."""

MISSED = {
    SPIKINGJELLY: "that {0, 0.25} needs no MAC, nor does an integer; that spikes also meet zeros "
    "in a product with integers; that a real-valued layer is silent once; a mean over images",
    SYNOPS: "layers that read anything but 0 and 1; and as above",
    ENERGY: "as above; additions of norms and residuals are among its accumulates",
    NEUROBENCH: "products of two activations; functional operations; how far an image is from the "
    "mean; an error of the metric is printed and counts as 0.0; sums are in float32",
}
"""What each does not count, or counts wrongly; shown in test_peers.py."""

Counter = Callable[[nn.Module, Tensor], Any]


@dataclass
class Comparison:
    """What each contender found, and the seconds of each of its turns."""

    found: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def ratio(self, name: str, to: str) -> float:
        """How many times as long one takes as another: the median over turns, side by side."""
        pairs = zip(self.seconds[name], self.seconds[to], strict=True)
        return median(one / other for one, other in pairs)


def plain(model: nn.Module, images: Tensor) -> None:
    """A forward pass, without gradients as all others."""
    with torch.no_grad():
        model(images)


def ours(model: nn.Module, images: Tensor) -> OperationReport:
    """Everything that `profile_operations` counts."""
    return profile_operations(model, [images])


def spikingjelly_synops(model: nn.Module, images: Tensor) -> dict[str, int]:
    """Synaptic operations of binary inputs by the operation that ran, such as "convolution"."""
    from spikingjelly.activation_based.op_counter import DispatchCounterMode, SynOpCounter

    counter = SynOpCounter()
    with torch.no_grad(), DispatchCounterMode([counter]):
        model(images)
    return _by_operation(counter)


def spikingjelly(model: nn.Module, images: Tensor) -> tuple[dict[str, int], dict[str, int]]:
    """Synaptic operations as above, and the dense MACs of all that read other values."""
    from spikingjelly.activation_based import op_counter

    counters = [op_counter.SynOpCounter(), op_counter.MACCounter()]
    with torch.no_grad(), op_counter.DispatchCounterMode(counters):
        model(images)
    synops, macs = map(_by_operation, counters)
    return synops, macs


def _by_operation(counter: Any) -> dict[str, int]:
    counts = counter.get_counts()["Global"]
    return {operation.overloadpacket.__name__: count for operation, count in counts.items()}


def spikingjelly_energy(model: nn.Module, images: Tensor) -> dict[str, int]:
    """MACs ("mac"), additions ("ac"), synaptic operations ("synop") and memory accesses."""
    from spikingjelly.activation_based.op_counter import SimpleEnergyProfiler

    profiler = SimpleEnergyProfiler()
    profiler.bind_model(model)
    with torch.no_grad(), profiler:
        model(images)
    return profiler.get_report().counts


def neurobench(model: nn.Module, images: Tensor) -> dict[str, float]:
    """Effective_MACs, Effective_ACs and Dense of the batch."""
    from neurobench.metrics.workload import SynapticOperations
    from neurobench.models import TorchModel

    wrapped, metric = TorchModel(model), SynapticOperations()
    wrapped.register_hooks()
    try:
        with torch.no_grad():
            means = metric(wrapped, wrapped(images), (images, None))
    finally:
        wrapped.cleanup_hooks()
    return {name: mean * len(images) for name, mean in means.items()}


def contenders() -> dict[str, Counter]:
    """All that are installed."""
    found: dict[str, Counter] = {PLAIN: plain, OURS: ours}
    if find_spec("spikingjelly"):
        found[SPIKINGJELLY] = spikingjelly
        found[SYNOPS] = spikingjelly_synops
        found[ENERGY] = spikingjelly_energy
    if find_spec("neurobench"):
        found[NEUROBENCH] = neurobench
    return found


def example(
    name: str, time_steps: int, batch_size: int, image_size: int, neurons: str = OURS
) -> tuple[nn.Module, Tensor]:
    """A classifier whose neurons, ours or SpikingJelly's, fire, and images `(B, C, H, W)`."""
    torch.manual_seed(0)
    model = build_classifier(name, 1000, time_steps)
    images = torch.randn(batch_size, input_channels(name), image_size, image_size)
    with settling_norms(model), torch.no_grad():
        model.train()(images)
    model.eval()
    return (model if neurons == OURS else replace_neurons(model)), images


def compare(model: nn.Module, images: Tensor, rounds: int) -> Comparison:
    """Let every contender count in turns; a round before those that are timed warms up."""
    comparison = Comparison()
    counters = contenders()
    for turn in range(rounds + 1):
        for name, counter in counters.items():
            if find_spec("spikingjelly"):
                reset(model)
            start = time.perf_counter()
            comparison.found[name] = counter(model, images)
            if turn > 0:
                comparison.seconds.setdefault(name, []).append(time.perf_counter() - start)
    return comparison


def groups(report: OperationReport) -> dict[str, list[OperationRow]]:
    """Our rows as the peers can be compared with them."""
    weighted = [row for row in report.rows if row.other_value_kind is None]
    return {
        "weights met by spikes {0, 1}": [r for r in weighted if r.value_kind == "binary"],
        "weights met by other non-zero inputs": [r for r in weighted if r.value_kind != "binary"],
        "pairs that meet in products of two activations": [
            row for row in report.rows if row.other_value_kind is not None
        ],
    }


def exact(rows: list[OperationRow], images: int) -> float:
    """Synaptic operations of all images."""
    return images * sum(row.exact_synaptic_operations for row in rows)


def dense_without_padding(report: OperationReport) -> float:
    """Weights that all inputs of all images and time steps meet, zero or not."""
    weighted = [row for row in report.rows if row.other_value_kind is None]
    macs = sum(row.dense_macs_unpadded for row in weighted)
    return report.images * report.time_steps * macs


def speed_table(comparison: Comparison) -> Table:
    """Seconds, the ratio to a plain forward pass, and how many times as fast ours is."""
    table = Table("counter", "seconds", "forward passes", "ours is times as fast", "asked")
    for name, seconds in comparison.seconds.items():
        table.add_row(
            name,
            f"{median(seconds):.3f} ({min(seconds):.3f} to {max(seconds):.3f})",
            f"{comparison.ratio(name, PLAIN):.2f}",
            "" if name in (PLAIN, OURS) else f"{comparison.ratio(name, OURS):.2f}",
            f"{ASKED[name]:g}" if name in ASKED else "",
        )
    return table


def count_table(comparison: Comparison, images: int) -> Table:
    """What each found in the batch; "-" is what it does not count."""
    report = comparison.found[OURS]
    table = Table("in the batch", "operations", OURS, "SpikingJelly", "NeuroBench")
    for (what, rows), theirs in zip(groups(report).items(), _theirs(comparison), strict=True):
        table.add_row(what, str(len(rows)), f"{exact(rows, images):,.0f}", *theirs)
    of_neurobench = comparison.found.get(NEUROBENCH, {}).get("Dense")
    dense = f"{dense_without_padding(report):,.0f}"
    table.add_row("weights met if nothing were zero", "", dense, "-", _shown(of_neurobench))
    return table


def _theirs(comparison: Comparison) -> list[tuple[str, str]]:
    synops, macs = comparison.found.get(SPIKINGJELLY, ({}, {}))
    of_neurobench = comparison.found.get(NEUROBENCH, {})
    weighted = synops["convolution"] + synops["addmm"] if synops else None
    dense = f"{macs['convolution'] + macs['addmm']:,} dense" if macs else "-"
    return [
        (_shown(weighted), _shown(of_neurobench.get("Effective_ACs"))),
        (dense, _shown(of_neurobench.get("Effective_MACs"))),
        (_shown(synops.get("bmm")), "-"),
    ]


def _shown(count: float | None) -> str:
    return "-" if count is None else f"{count:,.0f}"


def main() -> None:
    """Compare, and print two tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", nargs="?", default="meta_spikeformer_nano", help="a backbone")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--time-steps", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--neurons", choices=[OURS, "spikingjelly"], default=OURS)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each, after a first")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    sizes = arguments.time_steps, arguments.batch_size, arguments.image_size
    try:
        model, images = example(arguments.model, *sizes, arguments.neurons)
    except UserError as error:
        parser.error(str(error))
    comparison = compare(model, images, arguments.rounds)
    console = Console()
    console.print(
        f"{arguments.model}, neurons of {arguments.neurons}, T = {arguments.time_steps}, images "
        f"{tuple(images.shape)}, {arguments.threads} threads, medians (least to most) of "
        f"{arguments.rounds} turns"
    )
    console.print(speed_table(comparison))
    console.print(count_table(comparison, len(images)))
    for name, missed in MISSED.items():
        if name in comparison.found:
            console.print(f"{name} misses: {missed}")
    if NEUROBENCH not in comparison.found:
        console.print("NeuroBench is not installed; the top of this file says how to", style="bold")


if __name__ == "__main__":
    main()

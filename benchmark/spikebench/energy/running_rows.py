"""The rows that a count fills, and the report's rows that they become at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count

from torch import Tensor, nn

from spikebench.energy.operations import NeuronRow, OperationRow
from spikebench.energy.running_statistics import ForwardPass, Operand, RunningSpread, by_image
from spikebench.energy.tensor_statistics import SampleShape
from spikebench.neurons import UpdateCost


@dataclass
class RunningRow:
    """One operation of a module, counted over a data set.

    Exact synaptic operations are counted three times: as pairs of non-zeros that meet, and as pairs
    weighed by the magnitude of the first and of the second operand. Which of these counts is
    charged is known only when all values were seen: a spike of 3 that meets 10 weights is 10 pairs,
    and 30 accumulations if no operand turns out to be binary.

    Attributes:
        module: the module that runs it.
        owned: whether the weight is a parameter of that module itself.
        encodes: whether it reads the image, before any neuron has fired.
        dense: multiply-accumulates, padded positions counted.
        unpadded: the same without padding.
        outputs: values written.
        weights: values of the weight.
        spreads: over images, of the three counts.
    """

    module: str
    kind: str
    owned: bool
    encodes: bool
    operands: list[Operand]
    dense: int = 0
    unpadded: int = 0
    outputs: int = 0
    weights: int = 0
    spreads: list[RunningSpread] = field(
        default_factory=lambda: [RunningSpread() for _ in range(3)]
    )
    _exact: list[int] = field(default_factory=lambda: [0, 0, 0])
    _calls: list[tuple[list[Tensor], SampleShape]] = field(default_factory=list)

    def add(self, counts: Sequence[Tensor], samples: SampleShape) -> None:
        """Add the synaptic operations of one call, by sample.

        Args:
            counts: pairs, then pairs weighed by each operand.
            samples: how far samples could be told apart.
        """
        three = [*counts, *[counts[0]] * (3 - len(counts))]
        sums: dict[int, int] = {}  # where nothing is weighed, the three are one tensor
        for number, met in enumerate(three):
            if id(met) not in sums:
                sums[id(met)] = int(met.sum())
            self._exact[number] += sums[id(met)]
        self._calls.append((three, samples))

    def end_pass(self, done: ForwardPass) -> list[float] | None:
        """Close a pass; the exact operations of each image, or None where that is unknown."""
        calls, self._calls = self._calls, []
        for operand in self.operands:
            operand.end_pass(done)
        pairs = by_image([(three[0], samples) for three, samples in calls], done)
        images = [pairs]
        for number in (1, 2):
            alike = all(three[number] is three[0] for three, _ in calls)
            weighed = [(three[number], samples) for three, samples in calls]
            images.append(pairs if alike else by_image(weighed, done))
        for spread, one in zip(self.spreads, images, strict=True):
            spread.add(one)
        return images[self.charged]

    @property
    def exact(self) -> int:
        """Exact synaptic operations, integers weighed where they are accumulated."""
        return self._exact[self.charged]

    @property
    def charged(self) -> int:
        """Which of the three counts is charged.

        An integer spike is accumulated as often as it says, unless the other operand is binary:
        then each pair is one accumulation.
        """
        kinds = [operand.kind for operand in self.operands]
        if self.encodes or "binary" in kinds or "scaled" in kinds or "integer" not in kinds:
            return 0
        return 1 + kinds.index("integer")


def operation_row(name: str, row: RunningRow, images: int, steps: int) -> OperationRow:
    """A row as means per image and (dense MACs, inputs, outputs) time step."""
    first, *others = row.operands
    second = others[0] if others else None
    per_step = images * steps
    return OperationRow(
        name=name,
        kind=row.kind,
        dense_macs=row.dense / per_step,
        dense_macs_unpadded=row.unpadded / per_step,
        inputs=first.elements / per_step,
        outputs=row.outputs / per_step,
        weights=row.weights,
        encodes=row.encodes,
        value_kind=first.kind,
        value_range=first.range,
        rate=first.rate,
        rates=first.rates,
        rate_std=first.spread.deviation,
        magnitude=first.magnitude,
        other_inputs=second.elements / per_step if second else 0.0,
        other_value_kind=second.kind if second else None,
        other_value_range=second.range if second else None,
        other_rate=second.rate if second else None,
        other_magnitude=second.magnitude if second else None,
        exact_synaptic_operations=row.exact / images,
        exact_std=row.spreads[row.charged].deviation,
    )


def neuron_row(
    name: str,
    kind: str,
    spikes: Operand,
    cost: UpdateCost,
    bytes_per_value: int,
    images: int,
    steps: int,
) -> NeuronRow:
    """A layer of neurons as means per image.

    Args:
        name: the layer.
        kind: its class.
        spikes: everything that it gave.
        cost: of an update.
        bytes_per_value: the width that its state is kept in.
        images: images counted.
        steps: time steps per image.
    """
    updates = spikes.elements / (images * cost.outputs)
    neurons = updates / steps
    return NeuronRow(
        name=name,
        kind=kind,
        neurons=neurons,
        updates=updates,
        additions=cost.additions,
        multiplications=cost.multiplications,
        state_bytes=neurons * (cost.states * bytes_per_value),
        rate=spikes.rate,
        rates=spikes.rates,
        rate_std=spikes.spread.deviation,
        spikes=(spikes.magnitudes if spikes.kind == "integer" else spikes.nonzeros) / images,
    )


def name_rows(rows: Iterable[RunningRow], model: nn.Module) -> Mapping[str, RunningRow]:
    """Rows by unique name, in the order given.

    A row has its module's name where the module owns the weight of this one row, or has no
    submodules and no other row; else `<module>.<kind>`, and `_1`, `_2`, ... after that.
    """
    rows = list(rows)
    total = Counter(row.module for row in rows)
    owned = Counter(row.module for row in rows if row.owned)
    leaves = {name for name, module in model.named_modules() if not any(module.children())}
    named: dict[str, RunningRow] = {}
    for row in rows:
        alone = row.owned and owned[row.module] == 1
        alone |= row.module in leaves and total[row.module] == 1
        name = row.module if alone and row.module else f"{row.module}.{row.kind}".lstrip(".")
        numbered = chain([name], (f"{name}_{i}" for i in count(1)))
        named[next(free for free in numbered if free not in named)] = row
    return named

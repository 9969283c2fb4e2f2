"""The rows that a count fills: what an operation has met, and what it costs at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from spikebench.energy.operations import OperationRow
from spikebench.energy.running_statistics import ForwardPass, Operand, RunningSpread, by_image
from spikebench.energy.tensor_statistics import SampleShape, TensorStatistics


@dataclass
class RunningRow:
    """One operation of a module, streamed over a data set.

    Attributes:
        module: the module that runs it.
        owned: whether the weight is a parameter of that module itself.
        dense: multiply-accumulates, padded positions counted.
        unpadded: the same without padding.
        outputs: values written.
        weights: values of the weight.
        spreads: exact synaptic operations by image: of pairs, and of pairs weighed by the first and
            by the second operand.
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

    def add(self, meetings: Sequence[Tensor], layout: SampleShape) -> None:
        """Add what met by sample: pairs, and pairs weighed by the first and the second operand."""
        three = [*meetings, *[meetings[0]] * (3 - len(meetings))]
        sums: dict[int, int] = {}  # where nothing is weighed, the three are one tensor
        for number, met in enumerate(three):
            if id(met) not in sums:
                sums[id(met)] = int(met.sum())
            self._exact[number] += sums[id(met)]
        self._calls.append((three, layout))

    def end_pass(self, about: ForwardPass) -> list[float] | None:
        """Close a pass; the exact operations of each image, or None where that is unknown."""
        calls, self._calls = self._calls, []
        for operand in self.operands:
            operand.end_pass(about)
        pairs = by_image([(three[0], layout) for three, layout in calls], about)
        images = [pairs]
        for number in (1, 2):
            alike = all(three[number] is three[0] for three, _ in calls)
            weighed = [(three[number], layout) for three, layout in calls]
            images.append(pairs if alike else by_image(weighed, about))
        for spread, one in zip(self.spreads, images, strict=True):
            spread.add(one)
        return images[self.charged]

    @property
    def exact(self) -> int:
        """Exact synaptic operations, integers weighed where they are accumulated."""
        return self._exact[self.charged]

    @property
    def charged(self) -> int:
        """Integers are accumulated as often as they say, unless the other operand is binary."""
        kinds = [operand.kind for operand in self.operands]
        if self.encodes or "binary" in kinds or "scaled" in kinds or "integer" not in kinds:
            return 0
        return 1 + kinds.index("integer")


def described(name: str, row: RunningRow, images: int, steps: int) -> OperationRow:
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


def weighed(
    meetings: Callable[[bool], Tensor], operand: Operand, statistics: TensorStatistics, x: Tensor
) -> list[Tensor]:
    """Meetings by non-zeros and, unless values are real, by magnitudes."""
    plain = meetings(False)
    if operand.kind == "real":
        return [plain]
    weigh, unit = statistics.weighing(x)
    return [plain, meetings(True) if weigh else plain if unit == 1 else plain * unit]


def weighed_pairs(
    meetings: Callable[[bool, bool], Tensor],
    operands: Sequence[Operand],
    statistics: Sequence[TensorStatistics],
    values: Sequence[Tensor],
) -> list[Tensor]:
    """Meetings by pairs of non-zeros, by magnitudes of the first operand, and of the second."""
    plain = meetings(False, False)
    found = [plain]
    for number, (operand, of, x) in enumerate(zip(operands, statistics, values, strict=True)):
        weigh, unit = (False, 1) if operand.kind == "real" else of.weighing(x)
        if weigh:
            found.append(meetings(number == 0, number == 1))
        else:
            found.append(plain if unit == 1 else plain * unit)
    return found


def counted(x: Tensor, weigh: bool) -> Tensor:
    """1 for each non-zero value, or its magnitude."""
    return x.abs().double() if weigh else x.bool().double()

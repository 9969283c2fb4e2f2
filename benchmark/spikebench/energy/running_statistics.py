"""What an operation has met over a data set, as numbers that do not grow with it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from spikebench.energy.operations import ValueKind
from spikebench.energy.tensor_statistics import SampleShape, TensorStatistics


class ForwardPass(NamedTuple):
    """What is known of one forward pass.

    Attributes:
        images: images in the batch.
        steps: time steps that each is seen for.
        stepwise: whether every neuron ran once a time step.
    """

    images: int
    steps: int
    stepwise: bool = False


class TensorRead(NamedTuple):
    """One tensor that an operation read in a pass.

    Attributes:
        elements: how many values it has.
        counts: non-zeros of each sample, `(steps, images)`.
        layout: how far samples could be told apart.
    """

    elements: int
    counts: Tensor
    layout: SampleShape


@dataclass
class RunningSpread:
    """Mean and deviation over images, free of rounding, so that batching makes no difference.

    Values are kept in whole multiples of `1 / scale`.
    """

    scale: int = 1
    images: int = 0
    complete: bool = True
    _sum: int = 0
    _squares: int = 0

    def add(self, values: list[float] | None) -> None:
        """Add one value an image, or None where the images could not be told apart."""
        if values is None:
            self.complete = False
            return
        for value in values:
            whole = int(value * self.scale)
            self.images += 1
            self._sum += whole
            self._squares += whole * whole

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation; None of fewer than two images, or where some are unknown."""
        if self.images < 2 or not self.complete:
            return None
        scatter = self.images * self._squares - self._sum**2
        return math.sqrt(scatter / (self.images * (self.images - 1))) / self.scale


@dataclass
class Operand:
    """Streamed statistics of everything that one operand of an operation has carried."""

    elements: int = 0
    nonzeros: int = 0
    weighed: int = 0
    low: float = 0.0
    high: float = 0.0
    spread: RunningSpread = field(default_factory=lambda: RunningSpread(scale=2**53))
    _by_step: list[float] | None = field(default_factory=list)
    _constant: float | None = None
    _uniform: bool = True
    _whole: bool = True
    calls: list[TensorRead] = field(default_factory=list)

    def add(self, statistics: TensorStatistics, x: Tensor, layout: SampleShape) -> None:
        """Add the tensor `x`, whose statistics are given, and how samples lie in it."""
        nonzeros = statistics.nonzeros(x)
        self.elements += statistics.elements
        self.nonzeros += nonzeros
        self.calls.append(TensorRead(statistics.elements, statistics.by_sample(x, layout), layout))
        if nonzeros == 0 or self.kind == "real":
            return
        constant, whole, low, high = statistics.values(x)
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._uniform &= constant is not None and self._constant in (None, constant)
        self._constant = constant
        self._whole &= whole
        if not whole:
            return
        weigh, unit = statistics.weighing(x)
        summed = (
            statistics.by_sample(x, SampleShape(), weigh=True).sum() if weigh else unit * nonzeros
        )
        self.weighed += int(summed)

    def end_pass(self, about: ForwardPass) -> None:
        """Sort what the pass has brought by time step and by image."""
        calls, self.calls = self.calls, []
        if not calls:
            return
        steps = _by_step(calls, about)
        if steps is None or self._by_step is None:
            self._by_step = None
        else:
            before = self._by_step or [0.0] * about.steps
            self._by_step = [a + b for a, b in zip(before, steps, strict=True)]
        images = by_image([(call.counts, call.layout) for call in calls], about)
        elements = sum(call.elements for call in calls) / about.images
        rates = images and [count / elements if elements else 0.0 for count in images]
        self.spread.add(rates)

    @property
    def rate(self) -> float:
        """Share of non-zeros; 0.0 where nothing was seen."""
        return self.nonzeros / self.elements if self.elements else 0.0

    @property
    def rates(self) -> list[float]:
        """Share of non-zeros at each time step; empty where these could not be told apart."""
        if not self._by_step or not self.elements:
            return []
        elements = self.elements / len(self._by_step)
        return [count / elements for count in self._by_step]

    @property
    def magnitude(self) -> float | None:
        """Mean absolute value, zeros included, of whole numbers; None of others."""
        if not self._whole:
            return None
        return self.weighed / self.elements if self.elements else 0.0

    @property
    def kind(self) -> ValueKind:
        """The kind of all values seen; binary where there was nothing but zeros."""
        if self._uniform:
            return "binary" if self._constant in (None, 1.0) else "scaled"
        return "integer" if self._whole else "real"

    @property
    def range(self) -> tuple[float, float] | None:
        """The lowest and the highest value, zero included; None of real ones."""
        return None if self.kind == "real" else (self.low, self.high)


def by_image(counts: list[tuple[Tensor, SampleShape]], about: ForwardPass) -> list[float] | None:
    """Counts `(steps, images)` of several calls as one sum an image; None if that is unknown."""
    if any(layout.images != about.images for _, layout in counts):
        return None
    total = sum(count.sum(0) for count, _ in counts)
    return total.tolist() if isinstance(total, Tensor) else [0.0] * about.images


def ran_stepwise(operands: Iterable[Operand], steps: int) -> bool:
    """Whether every operand was met once at each of several time steps in this pass."""
    met = [operand.calls for operand in operands if operand.calls]
    once_a_step = all(
        len(calls) == steps and all(call.layout.steps == 1 for call in calls) for calls in met
    )
    return steps > 1 and bool(met) and once_a_step


def _by_step(calls: list[TensorRead], about: ForwardPass) -> list[float] | None:
    """Non-zeros at each time step; a module may also be called once for each of them."""
    if all(call.layout.steps == about.steps for call in calls):
        return sum(call.counts.sum(1) for call in calls).tolist()  # type: ignore[union-attr]
    alike = len({call.elements for call in calls}) == 1
    if about.stepwise and alike and len(calls) == about.steps:
        return [float(call.counts.sum()) for call in calls]
    return None

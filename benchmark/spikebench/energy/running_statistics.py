"""Statistics of what an operation reads over a data set: numbers that do not grow with it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from spikebench.energy.operations import ValueKind
from spikebench.energy.tensor_statistics import SampleShape, TensorRead


class ForwardPass(NamedTuple):
    """One forward pass of a model.

    Attributes:
        images: images in the batch.
        steps: time steps that each is seen for.
        stepwise: whether every neuron ran once per time step.
    """

    images: int
    steps: int
    stepwise: bool = False


class _ReadCounts(NamedTuple):
    """What is kept of one tensor that an operation read, until the pass ends.

    Attributes:
        elements: how many values it has.
        nonzeros: non-zeros of each sample, `(steps, images)`.
        samples: how far samples could be told apart.
    """

    elements: int
    nonzeros: Tensor
    samples: SampleShape


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
        """Add one value per image, or None where the images could not be told apart."""
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
        """Sample standard deviation; None for fewer than two images, or if some are unknown."""
        if self.images < 2 or not self.complete:
            return None
        scatter = self.images * self._squares - self._sum**2
        return math.sqrt(scatter / (self.images * (self.images - 1))) / self.scale


@dataclass
class Operand:
    """Running statistics of everything that one operand of an operation has carried.

    Attributes:
        elements: values read.
        nonzeros: those that are not zero.
        magnitudes: the sum of absolute values, of whole numbers.
        low: the lowest value, zero included.
        high: the highest value, zero included.
        spread: of the rate over images.
    """

    elements: int = 0
    nonzeros: int = 0
    magnitudes: int = 0
    low: float = 0.0
    high: float = 0.0
    spread: RunningSpread = field(default_factory=lambda: RunningSpread(scale=2**53))
    _by_step: list[float] | None = field(default_factory=list)
    _constant: float | None = None
    _uniform: bool = True
    _whole: bool = True
    _reads: list[_ReadCounts] = field(default_factory=list)

    def add(self, read: TensorRead) -> None:
        """Add a tensor."""
        x, statistics, samples = read
        nonzeros = statistics.nonzeros(x)
        self.elements += statistics.elements
        self.nonzeros += nonzeros
        self._reads.append(_ReadCounts(statistics.elements, read.by_sample(), samples))
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
        if weigh:
            self.magnitudes += int(statistics.by_sample(x, SampleShape(), weigh=True).sum())
        else:
            self.magnitudes += unit * nonzeros

    def end_pass(self, done: ForwardPass) -> None:
        """Sort what the pass has brought by time step and by image."""
        reads, self._reads = self._reads, []
        if not reads:
            return
        steps = _by_step(reads, done)
        if steps is None or self._by_step is None:
            self._by_step = None
        else:
            before = self._by_step or [0.0] * done.steps
            self._by_step = [a + b for a, b in zip(before, steps, strict=True)]
        images = by_image([(read.nonzeros, read.samples) for read in reads], done)
        elements = sum(read.elements for read in reads) / done.images
        self.spread.add(images and [count / elements if elements else 0.0 for count in images])

    @property
    def rate(self) -> float:
        """Share of non-zeros; 0.0 where nothing was read."""
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
        """Mean absolute value, zeros included, of whole numbers; None for others."""
        if not self._whole:
            return None
        return self.magnitudes / self.elements if self.elements else 0.0

    @property
    def kind(self) -> ValueKind:
        """The kind of all values seen; binary where all were zero."""
        if self._uniform:
            return "binary" if self._constant in (None, 1.0) else "scaled"
        return "integer" if self._whole else "real"

    @property
    def range(self) -> tuple[float, float] | None:
        """The lowest and the highest value, zero included; None for real ones."""
        return None if self.kind == "real" else (self.low, self.high)

    def ran_once_per_step(self, steps: int) -> bool | None:
        """Whether it was read once at each time step of this pass; None if it was not read."""
        if not self._reads:
            return None
        return len(self._reads) == steps and all(read.samples.steps == 1 for read in self._reads)


def by_image(counts: list[tuple[Tensor, SampleShape]], done: ForwardPass) -> list[float] | None:
    """Sum counts `(steps, images)` of several reads by image; None where images are unknown."""
    if any(samples.images != done.images for _, samples in counts):
        return None
    total = sum(count.sum(0) for count, _ in counts)
    return total.tolist() if isinstance(total, Tensor) else [0.0] * done.images


def ran_stepwise(operands: Iterable[Operand], steps: int) -> bool:
    """Whether every operand that was read was read once at each of several time steps."""
    once = [operand.ran_once_per_step(steps) for operand in operands]
    return steps > 1 and True in once and False not in once


def _by_step(reads: list[_ReadCounts], done: ForwardPass) -> list[float] | None:
    """Non-zeros at each time step, where one read has all steps, or each read has one of them.

    With T = 2 and 3 images, a layer that reads `(T * B, ...)` in one call has counts of shape
    (2, 3), summed over images. A layer called at each step, in a model whose neurons all ran so,
    was read twice; a layer that happens to be called twice in a pass of all steps proves nothing.
    """
    if all(read.samples.steps == done.steps for read in reads):
        return sum(read.nonzeros.sum(1) for read in reads).tolist()  # type: ignore[union-attr]
    alike = len({read.elements for read in reads}) == 1
    if done.stepwise and alike and len(reads) == done.steps:
        return [float(read.nonzeros.sum()) for read in reads]
    return None

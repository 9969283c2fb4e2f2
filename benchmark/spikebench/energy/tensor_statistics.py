"""Statistics of one tensor: how many non-zeros, where they lie, and which kind of values they are.

Every count is a whole number held in int or float64, so nothing is ever rounded.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from spikebench.energy.nonzeros import NonzeroCounts, count_nonzeros

_EXACT_IN_FLOAT32 = 2**24
_SAMPLE = 4096  # values looked at first: most real-valued tensors show there what they are


class SampleShape(NamedTuple):
    """How many samples of a batch can be told apart along the first axis of a tensor, time first.

    Attributes:
        steps: time steps; 1 where they are not told apart.
        images: images; 1 where they are not told apart.
    """

    steps: int = 1
    images: int = 1

    @property
    def total(self) -> int:
        """Time steps times images."""
        return self.steps * self.images


class Values(NamedTuple):
    """The non-zero values of a tensor.

    Attributes:
        constant: the value they all equal, or None.
        whole: whether they are whole numbers.
        low: the lowest value, zero included; -inf where values are not whole and differ.
        high: the highest, likewise.
    """

    constant: float | None
    whole: bool
    low: float
    high: float


_REAL = Values(None, False, -math.inf, math.inf)


class TensorStatistics:
    """Counts of one tensor, found as they are asked for; the tensor itself is never kept.

    Methods take the tensor again, as `x`.

    Attributes:
        elements: how many values the tensor has.
    """

    def __init__(self, x: Tensor) -> None:
        self.elements = x.numel()
        self._nonzero_counts: NonzeroCounts | None = None
        self._nonzeros = 0
        self._values: Values | None = None
        self._sums: dict[Hashable, Tensor] = {}

    def nonzeros(self, x: Tensor) -> int:
        """How many values of `x` are not zero."""
        self._counted(x)
        return self._nonzeros

    def values(self, x: Tensor) -> Values:
        """The kind of the non-zero values of `x`."""
        if self._values is None:
            nonzeros = self.nonzeros(x)
            is_binary = 0 < nonzeros == self._counted(x).ones
            self._values = Values(1.0, True, 0.0, 1.0) if is_binary else _values(x, nonzeros)
        return self._values

    def weighing(self, x: Tensor) -> tuple[bool, int]:
        """Whether magnitudes of `x` have to be summed; if not, the magnitude of every non-zero.

        Real values are not weighed; for them it is 1.
        """
        values = self.values(x)
        if values.constant is None:
            return values.whole and self.nonzeros(x) > 0, 1
        return False, int(abs(values.constant)) if values.whole else 1

    def sums(self, x: Tensor, dims: tuple[int, ...], weigh: bool = False) -> Tensor:
        """How many non-zeros `x` has along `dims`: float64, of the shape of the other axes.

        Args:
            x: the tensor these statistics are of, or a view of the whole of it.
            dims: the axes to sum over, none of them negative.
            weigh: sum absolute values instead, which must be whole numbers.
        """
        key = (tuple(x.shape), dims, weigh)
        self._counted(x)
        if key not in self._sums:
            self._sums[key] = self._sum(x, dims, weigh)
        return self._sums[key].double()

    def by_sample(self, x: Tensor, samples: SampleShape, weigh: bool = False) -> Tensor:
        """Non-zeros, or magnitudes, of each sample: float64 `(steps, images)`.

        Args:
            x: the tensor these statistics are of; where samples can be told apart, its first axis
                is these, or several rows or heads of each.
            samples: how many.
            weigh: as for `sums`.
        """
        by_first_axis = self._counted(x).by_sample
        if not weigh and len(by_first_axis) % samples.total == 0:
            return sum_samples(by_first_axis, samples)
        maps = merged_axes(x) if x.dim() > 1 else x.view(-1, 1)
        return sum_samples(self.sums(maps, (1,), weigh), samples)

    def _counted(self, x: Tensor) -> NonzeroCounts:
        if self._nonzero_counts is None:
            maps = merged_axes(x)
            self._nonzero_counts = count_nonzeros(maps)
            self._nonzeros = int(self._nonzero_counts.by_sample.sum())
            if self._nonzero_counts.by_position is not None:
                self._sums[tuple(maps.shape), (1,), False] = self._nonzero_counts.by_position
        return self._nonzero_counts

    def _sum(self, x: Tensor, dims: tuple[int, ...], weigh: bool) -> Tensor:
        summed = math.prod(x.shape[dim] for dim in dims)
        kept = [size for dim, size in enumerate(x.shape) if dim not in dims]
        nonzeros = self.nonzeros(x)
        if nonzeros == 0 or (nonzeros == self.elements and not weigh):
            value = float(summed) if nonzeros else 0.0
            return torch.full(kept, value, dtype=torch.float64, device=x.device)
        limit = _EXACT_IN_FLOAT32
        if weigh:
            values = self.values(x)
            counted = x.abs()
            limit = int(limit // max(abs(values.low), abs(values.high)))
        else:
            is_binary = self._values is not None and self._values.constant == 1
            counted = x if is_binary else x.bool()
        dtype = torch.float32 if summed < limit else torch.float64
        return counted.to(dtype).sum(dims).double()


class TensorRead(NamedTuple):
    """A tensor that an operation reads.

    Attributes:
        values: the tensor.
        statistics: what it carries.
        samples: how many samples can be told apart along its first axis.
    """

    values: Tensor
    statistics: TensorStatistics
    samples: SampleShape

    def by_sample(self, weigh: bool = False) -> Tensor:
        """Non-zeros, or magnitudes, of each sample: float64 `(steps, images)`."""
        return self.statistics.by_sample(self.values, self.samples, weigh)


class StatisticsCache:
    """Statistics of the last few tensors, so that q, k and v count their common input once.

    A tensor is recognised by its storage and by its version, which every write in place raises. The
    weak reference to the storage also keeps its address from being used again.
    """

    def __init__(self, size: int = 16) -> None:
        self._size = size
        self._entries: OrderedDict[Hashable, TensorStatistics] = OrderedDict()

    def __call__(self, x: Tensor) -> TensorStatistics:
        """The statistics of `x`."""
        if x.is_inference():  # has no version
            return TensorStatistics(x)
        strides = x.numel() if x.is_contiguous() else (tuple(x.shape), x.stride())
        storage = StorageWeakRef(x.untyped_storage())
        key = (storage, x.storage_offset(), x.dtype, strides, x._version)
        if key not in self._entries:
            self._entries[key] = TensorStatistics(x)
            if len(self._entries) > self._size:
                self._entries.popitem(last=False)
        return self._entries[key]


def merged_axes(x: Tensor) -> Tensor:
    """Maps `(samples, C, ...)` as `(samples, C, positions)`: a view, in both memory layouts."""
    return x.flatten(2) if x.dim() > 3 else x


def sum_samples(counts: Tensor, samples: SampleShape) -> Tensor:
    """Counts `(several rows of each sample, ...)` as `(steps, images)`."""
    return counts.reshape(samples.total, -1).sum(1).view(samples)


def _count(mask: Tensor) -> int:
    return int(torch.count_nonzero(mask).item())


def _values(x: Tensor, nonzeros: int) -> Values:
    if x.is_complex():
        return _REAL
    if nonzeros == 0:
        return Values(None, True, 0.0, 0.0)
    sample = (x if x.is_contiguous() else x[:1]).flatten()[:_SAMPLE]
    if not _is_whole(sample) and len(torch.unique(sample)) > 2:
        return _REAL
    low, high = (value.item() for value in torch.aminmax(x))
    if not (math.isfinite(low) and math.isfinite(high)):
        return _REAL
    constant = high if high != 0 else low
    if low in (0, constant):  # no value lies beyond the constant
        equal = x >= constant if constant > 0 else x <= constant
        if _count(equal) == nonzeros:
            return Values(constant, float(constant).is_integer(), min(low, 0.0), max(high, 0.0))
    return Values(None, True, low, high) if _is_whole(x) else _REAL


def _is_whole(x: Tensor) -> bool:
    return not x.is_floating_point() or torch.equal(x, x.round())

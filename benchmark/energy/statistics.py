"""What an operand carries: how many non-zeros, where they lie, and which kind of values they are.

Every count is a whole number held in int or float64, so nothing is ever rounded.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from benchmark.energy.operations import ValueKind

_EXACT_IN_FLOAT32 = 2**24


class Values(NamedTuple):
    """The non-zero values of a tensor: the one they all equal, if any; are they whole numbers?"""

    constant: float | None
    whole: bool


class TensorStatistics:
    """Counts of one tensor, found as they are asked for; the tensor itself is never kept.

    Attributes:
        elements: how many values the tensor has.
        nonzeros: how many of them are not zero.
    """

    def __init__(self, x: Tensor) -> None:
        self.elements = x.numel()
        self.nonzeros = _count(x.bool())
        self._values: Values | None = None
        self._sums: dict[Hashable, Tensor] = {}

    def values(self, x: Tensor) -> Values:
        """The kind of the non-zero values of `x`, the tensor these statistics are of."""
        if self._values is None:
            self._values = _values(x, self.nonzeros)
        return self._values

    def sums(self, x: Tensor, dims: tuple[int, ...]) -> Tensor:
        """How many non-zeros `x` has along `dims`: float64, of the shape of the other axes."""
        key = (tuple(x.shape), dims)
        if key not in self._sums:
            self._sums[key] = self._sum(x, dims)
        return self._sums[key]

    def _sum(self, x: Tensor, dims: tuple[int, ...]) -> Tensor:
        summed = math.prod(x.shape[dim] for dim in dims)
        if self.nonzeros in (0, self.elements):
            kept = [size for dim, size in enumerate(x.shape) if dim not in dims]
            value = float(summed) if self.nonzeros else 0.0
            return torch.full(kept, value, dtype=torch.float64, device=x.device)
        binary = self._values is not None and self._values.constant == 1
        dtype = torch.float32 if summed < _EXACT_IN_FLOAT32 else torch.float64
        return (x if binary else x.bool()).to(dtype).sum(dims).double()


class StatisticsCache:
    """Statistics of the last few tensors, so that q, k and v count their common input once.

    A tensor is recognised by its storage, through a weak reference that also keeps the address from
    being used again, and by its version, which every write in place raises.
    """

    def __init__(self, size: int = 16) -> None:
        self._size = size
        self._entries: OrderedDict[Hashable, TensorStatistics] = OrderedDict()

    def __call__(self, x: Tensor) -> TensorStatistics:
        """The statistics of `x`."""
        if x.is_inference():  # has no version
            return TensorStatistics(x)
        layout = x.numel() if x.is_contiguous() else (tuple(x.shape), x.stride())
        storage = StorageWeakRef(x.untyped_storage())
        key = (storage, x.storage_offset(), x.dtype, layout, x._version)
        if key not in self._entries:
            self._entries[key] = TensorStatistics(x)
            if len(self._entries) > self._size:
                self._entries.popitem(last=False)
        return self._entries[key]


@dataclass
class Operand:
    """Streamed statistics of everything that one operand of an operation has carried."""

    elements: int = 0
    nonzeros: int = 0
    _constant: float | None = None
    _uniform: bool = True
    _whole: bool = True

    def add(self, statistics: TensorStatistics, x: Tensor) -> None:
        """Add the tensor `x`, whose statistics are given."""
        self.elements += statistics.elements
        self.nonzeros += statistics.nonzeros
        if statistics.nonzeros == 0 or self.kind == "real":
            return
        constant, whole = statistics.values(x)
        self._uniform &= constant is not None and self._constant in (None, constant)
        self._constant = constant
        self._whole &= whole

    @property
    def rate(self) -> float:
        """Share of non-zeros; 0.0 where nothing was seen."""
        return self.nonzeros / self.elements if self.elements else 0.0

    @property
    def kind(self) -> ValueKind:
        """The kind of all values seen; binary where there was nothing but zeros."""
        if self._uniform:
            return "binary" if self._constant in (None, 1.0) else "scaled"
        return "integer" if self._whole else "real"


class Coverage(NamedTuple):
    """How many kernel positions each input position meets along one spatial axis.

    Attributes:
        counts: whole numbers as float64, `(size,)`.
        total: their sum.
    """

    counts: Tensor
    total: int


@lru_cache(maxsize=1024)
def coverage(
    size: int,
    out: int,
    kernel: int,
    stride: int,
    padding: int,
    dilation: int,
    transposed: bool,
    device: torch.device,
) -> Coverage:
    """Coverage of the inputs of a convolution along one axis.

    Args:
        size: input positions.
        out: output positions.
        kernel: kernel positions.
        stride: stride of the convolution.
        padding: padding of the convolution; of a transposed one, what is cropped.
        dilation: dilation of the kernel.
        transposed: whether the convolution is transposed.
        device: where the counts shall lie.
    """
    inputs = torch.arange(size).unsqueeze(1)
    taps = torch.arange(kernel) * dilation
    if transposed:
        outputs = inputs * stride - padding + taps
        met = (outputs >= 0) & (outputs < out)
    else:
        offsets = inputs + padding - taps
        met = (offsets >= 0) & (offsets < out * stride) & (offsets % stride == 0)
    counts = met.sum(1)
    return Coverage(counts.double().to(device), int(counts.sum()))


def _count(mask: Tensor) -> int:
    return int(torch.count_nonzero(mask).item())


def _values(x: Tensor, nonzeros: int) -> Values:
    if x.is_complex():
        return Values(None, whole=False)
    low, high = (value.item() for value in torch.aminmax(x))
    if not (math.isfinite(low) and math.isfinite(high)):
        return Values(None, whole=False)
    constant = high if high != 0 else low
    if low in (0, constant):  # so no value lies beyond the constant
        equal = x >= constant if constant > 0 else x <= constant
        if _count(equal) == nonzeros:
            return Values(constant, whole=float(constant).is_integer())
    return Values(None, whole=not x.is_floating_point() or torch.equal(x, x.round()))

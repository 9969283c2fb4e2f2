"""Count the non-zeros and the ones of a tensor, in one pass of a C++ kernel or in PyTorch."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from spikebench.native import load_kernels

_SOURCE = Path(__file__).with_name("nonzeros.cpp")
_EXACT_IN_FLOAT32 = 2**24
_SMALL = 2**13  # values: a kernel gains nothing on fewer


class NonzeroCounts(NamedTuple):
    """Counts of a tensor whose first axis is samples and whose second one is channels.

    Attributes:
        by_sample: non-zeros of each sample, float64 `(samples,)`.
        by_position: non-zeros over the channels, int32 `(samples, positions)`, or None where the
            kernel did not run.
        ones: how many values are 1.
    """

    by_sample: Tensor
    by_position: Tensor | None
    ones: int


def count_nonzeros(x: Tensor) -> NonzeroCounts:
    """Count the values of `x`.

    Args:
        x: `(samples, ...)`, or `(samples, channels, positions)` as a view of maps.
    """
    library = _kernels() if x.is_cpu and x.numel() >= _SMALL else None
    if library is not None and x.dtype == torch.float32 and 2 <= x.dim() <= 3:
        channels_first = x.is_contiguous()
        if channels_first or x.transpose(1, -1).is_contiguous():
            return _by_kernel(library, x, not channels_first)
    return _by_pytorch(x)


def _by_kernel(library: ctypes.CDLL, x: Tensor, channels_last: bool) -> NonzeroCounts:
    samples, channels = x.shape[:2]
    positions = x.shape[2] if x.dim() > 2 else 1
    by_position = torch.empty(samples, positions, dtype=torch.int32)
    by_sample = torch.empty(samples, dtype=torch.int64)
    ones = library.count_nonzeros(
        x.data_ptr(),
        samples,
        channels,
        positions,
        channels_last or positions == 1,
        by_position.data_ptr(),
        by_sample.data_ptr(),
        torch.get_num_threads(),
    )
    return NonzeroCounts(by_sample.double(), by_position if x.dim() > 2 else None, ones)


def _by_pytorch(x: Tensor) -> NonzeroCounts:
    samples = x if x.dim() > 0 else x.view(1)
    values = samples.bool()
    dims = tuple(range(1, values.dim()))
    if dims:
        exact = x.numel() // max(1, len(samples)) < _EXACT_IN_FLOAT32
        values = values.to(torch.float32 if exact else torch.float64).sum(dims)
    return NonzeroCounts(values.double(), None, int(torch.count_nonzero(samples == 1)))


@cache
def _kernels() -> ctypes.CDLL | None:
    library = load_kernels(_SOURCE, "counting takes PyTorch's own operations")
    if library is not None:
        number, pointer = ctypes.c_int64, ctypes.c_void_p
        library.count_nonzeros.argtypes = [
            pointer,
            *[number] * 3,
            ctypes.c_int,
            *[pointer] * 2,
            ctypes.c_int,
        ]
        library.count_nonzeros.restype = number
    return library

"""How many kernel positions each input of a convolution meets, padding and stride counted."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor


class KernelCoverage(NamedTuple):
    """How many kernel positions each input position meets along one spatial axis.

    Attributes:
        counts: whole numbers as float64, `(size,)`.
        total: their sum.
    """

    counts: Tensor
    total: int


@lru_cache(maxsize=1024)
def kernel_coverage(
    size: int,
    out: int,
    kernel: int,
    stride: int,
    padding: int,
    dilation: int,
    transposed: bool,
    device: torch.device,
) -> KernelCoverage:
    """Count the kernel positions that each input of a convolution meets along one axis.

    A kernel of 3 over 4 inputs, stride 1, padding 1: the ends meet 2 positions, the others 3.

    >>> kernel_coverage(4, 4, 3, 1, 1, 1, False, torch.device("cpu")).counts.tolist()
    [2.0, 3.0, 3.0, 2.0]

    Args:
        size: input positions.
        out: output positions.
        kernel: kernel positions.
        stride: stride of the convolution.
        padding: padding of the convolution; of a transposed one, what is cropped.
        dilation: dilation of the kernel.
        transposed: whether the convolution is transposed.
        device: of the counts.
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
    return KernelCoverage(counts.double().to(device), int(counts.sum()))

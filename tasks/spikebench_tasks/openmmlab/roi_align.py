"""RoIAlign on the CPU for maps whose channels are innermost, as backbones here hand them on.

torchvision's kernel has one thread in its backward pass and goes over channels outermost; in a
training step of Mask R-CNN it took a tenth of the time. `roi_align.cpp` is compiled on first use.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from spikebench.native import load_kernels

_POINTER = ctypes.c_void_p


def is_supported(*tensors: Tensor) -> bool:
    """Whether the kernel takes these: float32 on the CPU, and a compiler was found."""
    fit = all(one.device.type == "cpu" and one.dtype == torch.float32 for one in tensors)
    return fit and _kernels() is not None


def forward(
    maps: Tensor, regions: Tensor, size: tuple[int, int], scale: float, sampling: int, aligned: bool
) -> Tensor:
    """Pool each region into a grid of bins.

    Args:
        maps: `(B, C, H, W)`.
        regions: image and corners x1, y1, x2, y2 in pixels of the image, `(K, 5)`.
        size: rows and columns of bins.
        scale: pixels of the maps per pixel of the image.
        sampling: samples along each side of a bin; 0 takes one a pixel of the maps.
        aligned: whether a pixel's value stands at its centre.

    Returns:
        Means over bins, `(K, C, rows, columns)` with channels innermost.
    """
    read = maps.permute(0, 2, 3, 1).contiguous()
    output = read.new_zeros(len(regions), *size, read.shape[-1])
    sizes = (*read.shape[1:], *output.shape[:3], sampling)
    _call("roi_align_forward", read, regions, output, sizes, scale, aligned)
    return output.permute(0, 3, 1, 2)


def backward(
    gradient: Tensor,
    regions: Tensor,
    shape: tuple[int, ...],
    scale: float,
    sampling: int,
    aligned: bool,
) -> Tensor:
    """The gradient of maps of a shape, from that of `forward`'s output; arguments as there."""
    read = gradient.permute(0, 2, 3, 1).contiguous()
    images, channels, height, width = shape
    output = read.new_zeros(images, height, width, channels)
    sizes = (*output.shape[1:], *read.shape[:3], sampling)
    _call("roi_align_backward", read, regions, output, sizes, scale, aligned)
    return output.permute(0, 3, 1, 2)


def _call(
    name: str,
    read: Tensor,
    regions: Tensor,
    output: Tensor,
    sizes: tuple[int, ...],
    scale: float,
    aligned: bool,
) -> None:
    kernels = _kernels()
    assert kernels is not None
    regions = regions.contiguous()
    pointers = [_POINTER(each.data_ptr()) for each in (read, regions, output)]
    counts = (ctypes.c_int64 * len(sizes))(*sizes)
    getattr(kernels, name)(*pointers, counts, ctypes.c_float(scale), ctypes.c_bool(aligned))


@cache
def _kernels() -> ctypes.CDLL | None:
    return load_kernels(
        Path(__file__).with_suffix(".cpp"), "RoIAlign takes torchvision's slower kernels"
    )

"""Layers over time: each takes and gives (T, B, C, H, W)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def per_frame(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a layer of `(N, C, H, W)` to `(T, B, C, H, W)`, time and batch merged into N."""
    return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class ConvNorm(nn.Module):
    """Convolution and batch norm, with the padding that keeps the size at stride 1."""

    def __init__(
        self, dim_in: int, dim_out: int, kernel: int = 1, stride: int = 1, bias: bool = False
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim_in, dim_out, kernel, stride, padding=kernel // 2, bias=bias)
        self.norm = nn.BatchNorm2d(dim_out)

    def forward(self, x: Tensor) -> Tensor:
        """`(T, B, dim_in, H, W)` to `(T, B, dim_out, H / stride, W / stride)`."""
        return per_frame(lambda frames: self.norm(self.conv(frames)), x)


class MatMul(nn.Module):
    """A product of two activations, a module so that operation counts can name it."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """`torch.matmul(a, b)`."""
        return a @ b


def norm_of_zero(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """What a batch norm gives to a value of zero, `(C,)`, when it normalises `x`, `(N, C, H, W)`.

    In training these are the statistics of `x` itself, as in the norm's forward pass.
    """
    if norm.training:
        var, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
    else:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean, var = norm.running_mean, norm.running_var
    return norm.bias - mean * norm.weight * torch.rsqrt(var + norm.eps)

"""Layers over time: each takes and gives (T, B, C, H, W)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def per_frame(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a layer of (N, C, H, W) to `(T, B, C, H, W)` with time and batch merged."""
    return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class Conv(nn.Conv2d):
    """`nn.Conv2d` over `(T, B, C, H, W)`."""

    def forward(self, x: Tensor) -> Tensor:
        """One convolution of every frame."""
        return per_frame(super().forward, x)


class Norm(nn.BatchNorm2d):
    """`nn.BatchNorm2d` over `(T, B, C, H, W)`; statistics see time and batch merged."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise every channel over time, batch and space."""
        return per_frame(super().forward, x)

    def of_zero(self, x: Tensor) -> Tensor:
        """What this layer gives to a value of zero, `(C,)`, when it normalises `x`.

        In training these are the statistics of `x` itself, as in the forward pass.
        """
        if self.training:
            var, mean = torch.var_mean(x, dim=(0, 1, 3, 4), correction=0)
        else:
            assert self.running_mean is not None
            assert self.running_var is not None
            mean, var = self.running_mean, self.running_var
        return self.bias - mean * self.weight * torch.rsqrt(var + self.eps)


class ConvNorm(nn.Module):
    """Convolution and batch norm, with the padding that keeps the size at stride 1."""

    def __init__(
        self, dim_in: int, dim_out: int, kernel: int = 1, stride: int = 1, bias: bool = False
    ) -> None:
        super().__init__()
        self.conv = Conv(dim_in, dim_out, kernel, stride, padding=kernel // 2, bias=bias)
        self.norm = Norm(dim_out)

    def forward(self, x: Tensor) -> Tensor:
        """`(T, B, dim_in, H, W)` to `(T, B, dim_out, H / stride, W / stride)`."""
        return self.norm(self.conv(x))


class MatMul(nn.Module):
    """A product of two activations, a module so that operation counts can name it."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """`torch.matmul(a, b)`."""
        return a @ b

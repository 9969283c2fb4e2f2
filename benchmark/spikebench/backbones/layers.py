"""Layers over time: each takes and gives (T, B, C, H, W)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from spikebench.backbones.recompute import fire


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

    def forward(self, x: Tensor, neuron: nn.Module | None = None) -> Tensor:
        """`(T, B, dim_in, H, W)` to currents `(T, B, dim_out, H / stride, W / stride)`.

        Or, given the neuron that reads them, to its spikes, for less memory in training.
        """
        return _normalise(self.norm, self.conv(x.flatten(0, 1)), len(x), neuron)


def _normalise(
    norm: nn.Module, frames: Tensor, time_steps: int, neuron: nn.Module | None
) -> Tensor:
    if neuron is None:
        return norm(frames).unflatten(0, (time_steps, -1))
    return fire(neuron, norm, frames, time_steps)


class _Statistics(torch.autograd.Function):
    """Mean and inverse standard deviation of a batch, `(C,)` each, and the norm's running ones.

    As a batch norm computes them, which for channels-last maps is many times faster than
    `torch.var_mean`.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
        momentum = norm.momentum
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
            if momentum is None:  # the plain average of all batches
                momentum = 1 / float(norm.num_batches_tracked)
        running = (norm.running_mean, norm.running_var)
        _, mean, inverse_deviation = torch.native_batch_norm(
            x, None, None, *running, True, momentum or 0.0, norm.eps
        )
        ctx.save_for_backward(x, mean, inverse_deviation)
        return mean, inverse_deviation

    @staticmethod
    def backward(ctx: Any, grad_mean: Tensor, grad_inverse: Tensor) -> tuple[Tensor, None]:
        x, mean, inverse_deviation = ctx.saved_tensors
        count = x.numel() / x.shape[1]
        slope = -grad_inverse * inverse_deviation**3 / count
        offset = grad_mean / count - slope * mean
        each = (slice(None), None, None)
        return torch.addcmul(offset[each], x.to(offset.dtype), slope[each]).to(x.dtype), None


class RepConv(nn.Module):
    """A 3x3 convolution in three linear parts: pw, BN, dw 3x3, pw, BN; over frames (N, C, H, W).

    The border is padded with what the first BN gives to zero, so that in evaluation the whole is
    exactly one dense 3x3 convolution of zero-padded spikes. In training that BN is the scale and
    the bias of the depthwise convolution instead, which is the same map without the passes over
    its output and its padded copy.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.pw1 = nn.Conv2d(dim, dim, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(dim)
        self.dw = nn.Conv2d(dim, dim, 3, groups=dim, bias=False)
        self.pw2 = nn.Conv2d(dim, dim, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pw1(x)
        norm = self.norm1
        if isinstance(norm, nn.BatchNorm2d) and norm.training and not torch.compiler.is_compiling():
            mean, inverse_deviation = _Statistics.apply(x, norm)
            scale = norm.weight * inverse_deviation
            weight = self.dw.weight * scale[:, None, None, None]
            bias = (norm.bias - mean * scale) * self.dw.weight.sum((1, 2, 3))
            x = functional.conv2d(x, weight, bias, padding=1, groups=len(weight))
            return self.norm2(self.pw2(x))
        border = norm_of_zero(norm, x).to(x.dtype)
        frames, channels, height, width = x.shape
        padded = border[:, None, None].expand(frames, channels, height + 2, width + 2).clone()
        padded[..., 1:-1, 1:-1] = self.norm1(x)
        return self.norm2(self.pw2(self.dw(padded)))


class RepConvNorm(nn.Module):
    """RepConv and a BN of its own."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = RepConv(dim)
        self.norm = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor, neuron: nn.Module | None = None) -> Tensor:
        """As `ConvNorm`."""
        return _normalise(self.norm, self.conv(x.flatten(0, 1)), len(x), neuron)


class MatMul(nn.Module):
    """A matrix product of two activations, a module so that operation counts can name it."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """`torch.matmul(a, b)`."""
        return a @ b


class Mask(nn.Module):
    """The elementwise product of two activations; where one is spikes, it masks the other."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """`a * b`."""
        return a * b


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., ECCV 2016, arXiv 1603.09382): samples lose a branch.

    In training each sample loses it with the given probability, at all time steps together, and
    what is kept is scaled up so that the mean stays. In evaluation nothing is lost.

    Args:
        rate: probability of the loss, at least 0 and less than 1.
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """What a branch gives, `(T, B, ...)`."""
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        mask = x.new_empty(1, x.shape[1], *[1] * (x.dim() - 2)).bernoulli_(keep)
        return x * (mask / keep)

    def extra_repr(self) -> str:
        """What distinguishes this layer from another."""
        return f"rate={self.rate:.3g}"


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


@contextmanager
def settling_norms(model: nn.Module) -> Iterator[list[_BatchNorm]]:
    """Let the running statistics of batch norms be the plain average of the batches inside.

    Yields:
        The norms that keep running statistics, which begin anew.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    try:
        yield norms
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum

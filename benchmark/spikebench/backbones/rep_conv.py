"""The re-parameterisable 3x3 convolution of Spike-driven Transformer V2 and V3."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from spikebench.backbones.folding import dense, exact, frozen
from spikebench.backbones.layers import ConvNorm


class RepConv(nn.Module):
    """A 3x3 convolution in three linear parts: pw, BN, dw 3x3, pw, BN; over frames (N, C, H, W).

    The border is padded with what the first BN gives to zero, so that in evaluation the whole is
    exactly one dense 3x3 convolution of zero-padded spikes. In training that BN is the scale and
    the bias of the depthwise convolution instead, which is the same map without the passes over
    its output and its padded copy.
    """

    can_fuse = True

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

    def deployed(self, fold_norms: bool, fuse: bool) -> nn.Module:
        """Three plain convolutions, or one dense 3x3; see `spikebench.inference.deploy`."""
        if fuse:
            return dense(*self.without_norms())
        return nn.Sequential(*self.without_norms()) if fold_norms else self

    def without_norms(self) -> list[nn.Conv2d]:
        """pw, dw 3x3 padded with zeros, pw with a bias: together what this is in evaluation.

        The border is a constant map through the depthwise convolution, so what it adds is a bias.
        """
        dtype = self.dw.weight.dtype
        first = fuse_conv_bn_eval(exact(self.pw1), exact(self.norm1))
        middle = exact(self.dw)
        last = fuse_conv_bn_eval(exact(self.pw2), exact(self.norm2))
        constant = first.bias * middle.weight.sum((1, 2, 3))
        last.bias = frozen(last.bias + last.weight[:, :, 0, 0] @ constant)
        first.bias = None
        middle.padding = (1, 1)
        return [conv.to(dtype) for conv in (first, middle, last)]


class RepConvNorm(ConvNorm):
    """RepConv and a BN of its own."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, dim, conv=RepConv(dim))


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

"""Spikes with a surrogate gradient.

The forward pass is a step; the backward pass replaces its derivative, zero almost everywhere, with
that of a smooth function (Neftci, Mostafa and Zenke, 2019, arXiv 1901.09948). With u the distance
of the membrane from the threshold and a the sharpness alpha:

    sigmoid       a s (1 - s), s = sigmoid(a u)                  of a sigmoid; Zenke, 2018
    arctan        (a / 2) / (1 + (pi a u / 2)^2)                 of an arctangent; Fang, 2021
    rectangular   a where |u| < 1 / (2 a), else 0                of a ramp; Wu, 2018
    triangular    a max(0, 1 - a |u|)                            Esser, 2016; Bellec, 2018

All have the integral 1, so alpha alone sets the width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spikebench.registry import unknown_name


def sigmoid(u: Tensor, alpha: float) -> Tensor:
    """The slope of a sigmoid of alpha u."""
    smooth = torch.sigmoid(alpha * u)
    return alpha * smooth * (1 - smooth)


def arctan(u: Tensor, alpha: float) -> Tensor:
    """The slope of an arctangent of pi alpha u / 2, over pi."""
    scaled = (math.pi * alpha / 2) * u
    return (alpha / 2) / (1 + scaled * scaled)


def rectangular(u: Tensor, alpha: float) -> Tensor:
    """Alpha within half a width of the threshold, 0 outside."""
    return alpha * (u.abs() < 0.5 / alpha).to(u.dtype)


def triangular(u: Tensor, alpha: float) -> Tensor:
    """Alpha at the threshold, falling linearly to 0 at a distance of 1 / alpha."""
    return alpha * (1 - alpha * u.abs()).clamp_min(0)


SURROGATES: dict[str, Callable[[Tensor, float], Tensor]] = {
    f.__name__: f for f in (sigmoid, arctan, rectangular, triangular)
}
"""Names to gradients: functions of (distance from the threshold, alpha)."""

DEFAULT_ALPHA = {"sigmoid": 4.0, "arctan": 2.0, "rectangular": 1.0, "triangular": 1.0}

_SPIKINGJELLY = {
    "sigmoid": "Sigmoid",
    "arctan": "ATan",
    "rectangular": "Rect",
    "triangular": "PiecewiseQuadratic",
}


def surrogate_settings(name: str, alpha: float | None) -> dict[str, Any]:
    """The fields `surrogate` and `alpha` of a neuron; an alpha of None is the default.

    Raises:
        UnknownNameError: there is no such surrogate; the message suggests near ones.
    """
    if name not in DEFAULT_ALPHA:
        raise unknown_name("surrogate", name, DEFAULT_ALPHA)
    return {"surrogate": name, "alpha": DEFAULT_ALPHA[name] if alpha is None else alpha}


def spikingjelly_surrogate(name: str, alpha: float) -> Any:
    """Build SpikingJelly's surrogate of the same slope; an optional package."""
    from spikingjelly.activation_based import surrogate

    return getattr(surrogate, _SPIKINGJELLY[name])(alpha)


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, surrogate: str, alpha: float) -> Tensor:
        ctx.save_for_backward(u)
        ctx.surrogate, ctx.alpha = surrogate, alpha
        return (u >= 0).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (u,) = ctx.saved_tensors
        return grad * SURROGATES[ctx.surrogate](u, ctx.alpha), None, None


class _Count(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, levels: int) -> Tensor:
        ctx.save_for_backward(u)
        ctx.levels = levels
        return u.clamp(0, levels).round()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (u,) = ctx.saved_tensors
        return grad * inside(u, ctx.levels), None


def inside(u: Tensor, levels: int) -> Tensor:
    """1 where 0 <= u <= levels, else 0: the surrogate gradient of a spike count."""
    return ((u >= 0) & (u <= levels)).to(u.dtype)


def spike(u: Tensor, surrogate: str = "sigmoid", alpha: float = 4.0) -> Tensor:
    """1 where u >= 0, else 0; its gradient is the surrogate's.

    Args:
        u: distance of the membrane from the threshold, any shape.
        surrogate: as in `SURROGATES`.
        alpha: sharpness of the surrogate.

    Example:
        >>> u = torch.tensor([-1.0, 0.0, 2.0], requires_grad=True)
        >>> spike(u).tolist()
        [0.0, 1.0, 1.0]
        >>> spike(u).sum().backward(); u.grad[1]
        tensor(1.)
    """
    if torch.is_grad_enabled():
        return _Spike.apply(u, surrogate, alpha)
    return (u >= 0).to(u.dtype)


def count(u: Tensor, levels: int) -> Tensor:
    """The spike count round(clamp(u, 0, levels)), halves to even; gradient 1 inside, 0 outside.

    Args:
        u: membrane in units of the threshold, any shape.
        levels: the largest count.
    """
    return _Count.apply(u, levels) if torch.is_grad_enabled() else u.clamp(0, levels).round()

"""Spikes with a surrogate gradient.

The forward pass is the Heaviside step; the backward pass replaces its derivative, zero almost
everywhere, with that of a smooth function (Neftci, Mostafa and Zenke, 2019, arXiv 1901.09948).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _SigmoidSpike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.alpha = alpha
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        smooth = torch.sigmoid(ctx.alpha * x)
        return grad * (ctx.alpha * smooth * (1 - smooth)), None


def sigmoid_spike(x: Tensor, alpha: float = 4.0) -> Tensor:
    """1 where x >= 0, else 0; its gradient is that of sigmoid(alpha * x).

    Args:
        x: distance of the membrane from the threshold, any shape.
        alpha: sharpness of the surrogate.

    Example:
        >>> x = torch.tensor([-1.0, 0.0, 2.0], requires_grad=True)
        >>> sigmoid_spike(x)
        tensor([0., 1., 1.], grad_fn=<_SigmoidSpikeBackward>)
        >>> sigmoid_spike(x).sum().backward(); x.grad[1]
        tensor(1.)
    """
    return _SigmoidSpike.apply(x, alpha)

r"""The definition of a spiking neuron over T time steps, which all forms of it share.

With membrane v, input current x, time constant tau, threshold theta and resting membrane v0, from
v[-1] = v0 (0 with soft reset), for t = 0 .. T-1:

    charge   h[t] = v[t-1] + (x[t] - (v[t-1] - v0)) / tau     LIF whose input decays as its membrane
             h[t] = v[t-1] - (v[t-1] - v0) / tau + x[t]       LIF whose input does not
             h[t] = (1 - 1 / tau) v[t-1] + x[t]               the same at v0 = 0, but for rounding
             h[t] = v[t-1] + x[t]                             IF
    fire     s[t] = 1 if h[t] >= theta else 0                 at a threshold: binary spikes
             s[t] = round(clamp(h[t] / theta, 0, D))          by rounding: integer spikes
    reset    v[t] = s[t] v0 + (1 - s[t]) h[t]                 hard
             v[t] = h[t] - theta s[t]                         soft

A parametric LIF learns the leak k = 1 / tau = sigmoid(w). The gradient of s is a surrogate's (see
`surrogate`); a detached reset passes no gradient through the s in it. No state outlives a call.

`forward` is the reference, which autograd differentiates. `backward` is its derivative written
out. It needs only the currents: computing the membranes again costs less than keeping them.

Sources: Gerstner et al., Neuronal Dynamics (2014), section 1.3 (IF, LIF); Fang et al., ICCV 2021,
arXiv 2007.05785 (parametric LIF; the discrete forms); Luo et al., ECCV 2024, arXiv 2407.20708
(I-LIF). Spike-driven Transformer V2 (Yao et al., ICLR 2024) uses LIF with decaying input, tau = 2,
theta = 1, a hard detached reset to 0 and the sigmoid surrogate at alpha = 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from spikebench.neurons.surrogate import SURROGATES, count, inside, spike


@dataclass(frozen=True)
class Dynamics:
    """The equations and constants of a neuron, without what it learns.

    Attributes:
        tau: membrane time constant in time steps; None for IF.
        decay_input: whether the input decays as the membrane does.
        scale_membrane: whether the leak scales the membrane, as in I-LIF, and does not subtract a
            part of it: the same but for rounding. For a membrane that rests at 0.
        firing: how spikes follow from the membrane, "threshold" or "round".
        threshold: theta.
        v_reset: v0, to which a hard reset sets the membrane; None for a soft reset.
        detach_reset: whether the gradient ends at the spike in the reset.
        levels: the largest spike: 1 at a threshold, D by rounding.
        surrogate: as in `SURROGATES`; rounding has a surrogate of its own.
        alpha: its sharpness.
    """

    tau: float | None = 2.0
    decay_input: bool = True
    scale_membrane: bool = False
    firing: Literal["threshold", "round"] = "threshold"
    threshold: float = 1.0
    v_reset: float | None = 0.0
    detach_reset: bool = True
    levels: int = 1
    surrogate: str = "sigmoid"
    alpha: float = 4.0


def charge(d: Dynamics, x: Tensor, v: Tensor | float, leak: Tensor | None) -> Tensor:
    """h[t] of the current x[t] and the membrane v[t-1]."""
    rest = d.v_reset or 0.0
    if d.scale_membrane:
        assert d.tau is not None
        return (1 - 1 / d.tau) * v + x
    if leak is not None:
        return v + (x - (v - rest)) * leak if d.decay_input else v - (v - rest) * leak + x
    if d.tau is None:
        return v + x
    return v + (x - (v - rest)) / d.tau if d.decay_input else v - (v - rest) / d.tau + x


def forward(
    d: Dynamics, x: Tensor, leak: Tensor | None = None, threshold: Tensor | None = None
) -> Tensor:
    """Currents to spikes, step by step.

    Args:
        d: the neuron.
        x: currents `(T, ...)`, float32 or float64.
        leak: learnt 1 / tau, a scalar.
        threshold: learnt theta, a scalar.

    Returns:
        Spikes, of the shape and type of `x`.
    """
    theta = d.threshold if threshold is None else threshold
    spikes: list[Tensor] = []
    v: Tensor | float = d.v_reset or 0.0
    for current in x.unbind(0):
        h = charge(d, current, v, leak)
        if d.firing == "round":
            s = count(h / theta, d.levels)
        else:
            s = spike(h - theta, d.surrogate, d.alpha)
        spikes.append(s)
        if len(spikes) < len(x):
            fired = s.detach() if d.detach_reset else s
            if d.v_reset is None:
                v = h - theta * fired
            else:
                v = fired * d.v_reset + (1 - fired) * h if d.v_reset else (1 - fired) * h
    return torch.stack(spikes)


def backward(
    d: Dynamics,
    x: Tensor,
    grad: Tensor,
    leak: Tensor | None = None,
    threshold: Tensor | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The gradient of `forward`, from the currents and the gradient of the spikes.

    Args:
        d: the neuron.
        x: currents `(T, N)`.
        grad: gradient of the spikes `(T, N)`.
        leak: as in `forward`.
        threshold: as in `forward`.

    Returns:
        Gradients of the currents `(T, N)`, the leak and the threshold (None where not learnt).
    """
    theta = d.threshold if threshold is None else threshold
    rest = d.v_reset or 0.0
    before: list[Tensor | float] = []  # v[t-1]
    charged: list[Tensor] = []  # h[t]
    fired: list[Tensor] = []  # s[t]
    v: Tensor | float = rest
    for current in x.unbind(0):
        before.append(v)
        h = charge(d, current, v, leak)
        if d.firing == "round":
            s = (h / theta).clamp(0, d.levels).round()
        else:
            s = (h >= theta).to(h.dtype)
        charged.append(h)
        fired.append(s)
        v = h - theta * s if d.v_reset is None else s * rest + (1 - s) * h

    slope_x: Tensor | float  # dh[t] / dx[t]
    slope_v: Tensor | float  # dh[t] / dv[t-1]
    if leak is not None:
        slope_x, slope_v = leak if d.decay_input else 1.0, 1 - leak
    elif d.tau is None:
        slope_x, slope_v = 1.0, 1.0
    else:
        slope_x, slope_v = 1 / d.tau if d.decay_input else 1.0, 1 - 1 / d.tau

    grads: list[Tensor] = []
    grad_leak = grad_threshold = torch.zeros((), dtype=x.dtype, device=x.device)
    grad_v: Tensor | None = None  # of v[t]
    for t in range(len(charged) - 1, -1, -1):
        h, s = charged[t], fired[t]
        if d.firing == "round":
            slope = inside(h / theta, d.levels) / theta  # ds / dh
            slope_theta = -slope * h / theta  # ds / dtheta
        else:
            slope = SURROGATES[d.surrogate](h - theta, d.alpha)
            slope_theta = -slope
        grad_s = grad[t]
        grad_h = None
        if grad_v is not None:
            grad_h = grad_v if d.v_reset is None else grad_v * (1 - s)
            if not d.detach_reset:
                grad_s = grad_s + grad_v * (-theta if d.v_reset is None else rest - h)
            if d.v_reset is None:
                grad_threshold = grad_threshold - (grad_v * s).sum()
        grad_h = grad_s * slope if grad_h is None else grad_s * slope + grad_h
        grad_threshold = grad_threshold + (grad_s * slope_theta).sum()
        if leak is not None:
            drift = rest - before[t]
            grad_leak = grad_leak + (grad_h * (drift + x[t] if d.decay_input else drift)).sum()
        grads.append(grad_h * slope_x)
        grad_v = grad_h * slope_v
    return (
        torch.stack(grads[::-1]),
        None if leak is None else grad_leak,
        None if threshold is None else grad_threshold,
    )

r"""The leaky integrate-and-fire neuron over T time steps, plain PyTorch.

With membrane v, input current x, time constant tau and threshold theta, from v[-1] = 0:

    h[t] = v[t-1] + (x[t] - v[t-1]) / tau      charge; the input decays as the membrane does
    s[t] = 1 if h[t] >= theta else 0           fire
    v[t] = h[t] (1 - s[t])                     hard reset to 0, detached from the graph

This is the neuron of Spike-driven Transformer V2 (Yao et al., ICLR 2024) with tau = 2, theta = 1
and the sigmoid surrogate at alpha = 4; see Gerstner et al., Neuronal Dynamics (2014), section 1.3,
for the continuous form. No state outlives a call.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmark.neurons.surrogate import sigmoid_spike


class Neuron(nn.Module):
    """Base of all neurons: forward maps currents (T, ...) to spikes of the same shape."""


def lif(x: Tensor, tau: float = 2.0, threshold: float = 1.0, alpha: float = 4.0) -> Tensor:
    """Leaky integrate-and-fire over the first axis.

    Args:
        x: input currents, `(T, ...)`; in half precision the membrane is kept in float32.
        tau: membrane time constant, in time steps.
        threshold: membrane at which the neuron fires.
        alpha: sharpness of the sigmoid surrogate gradient.

    Returns:
        Spikes 0 or 1, of the shape and type of `x`.

    Example:
        >>> lif(torch.tensor([1.0, 1.8, 1.0])).tolist()
        [0.0, 1.0, 0.0]
    """
    half = x.dtype in (torch.float16, torch.bfloat16)
    currents = x.float() if half else x
    spikes: list[Tensor] = []
    membrane: Tensor | None = None
    for current in currents.unbind(0):
        charged = current / tau if membrane is None else membrane + (current - membrane) / tau
        spike = sigmoid_spike(charged - threshold, alpha)
        spikes.append(spike)
        if len(spikes) < len(currents):
            membrane = charged * (1 - spike.detach())
    return torch.stack(spikes).to(x.dtype)


class LIF(Neuron):
    """Leaky integrate-and-fire layer without parameters or buffers; see `lif`.

    Args:
        tau: membrane time constant, in time steps; greater than or equal to 1.
        threshold: membrane at which the neuron fires; positive.
        alpha: sharpness of the sigmoid surrogate gradient.
    """

    def __init__(self, tau: float = 2.0, threshold: float = 1.0, alpha: float = 4.0) -> None:
        super().__init__()
        if tau < 1:
            raise ValueError(f"tau is {tau}; a membrane time constant is at least 1 time step")
        if threshold <= 0:
            raise ValueError(f"threshold is {threshold}; it must be positive")
        self.tau = tau
        self.threshold = threshold
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        """Currents `(T, ...)` to spikes of the same shape."""
        return lif(x, self.tau, self.threshold, self.alpha)

    def extra_repr(self) -> str:
        """What distinguishes this layer from another."""
        return f"tau={self.tau}, threshold={self.threshold}"

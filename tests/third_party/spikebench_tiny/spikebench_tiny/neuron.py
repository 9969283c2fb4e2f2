"""A neuron of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from spikebench.neurons import Neuron, UpdateCost


class HalvingNeuron(Neuron):
    """Halves its membrane at each step, adds the current, and spikes at the threshold.

    v <- v / 2 + x, s = 1 where v >= threshold, v <- 0 there; the gradient is that of a sigmoid.
    """

    update_cost = UpdateCost(additions=1, multiplications=1, states=1)

    def __init__(self, threshold: float = 1.0, learn_threshold: bool = False) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        """Currents `(T, ...)` to spikes of the same shape."""
        membrane, spikes = torch.zeros_like(x[0]), []
        for current in x:
            membrane = membrane / 2 + current
            smooth = torch.sigmoid(4 * (membrane - self.threshold))
            spikes.append(smooth + ((membrane >= self.threshold).to(x) - smooth).detach())
            membrane = membrane * (1 - spikes[-1].detach())
        return torch.stack(spikes)

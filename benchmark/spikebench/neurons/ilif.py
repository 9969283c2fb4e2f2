"""Integer LIF, and its integer spikes as binary ones over more time steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spikebench.neurons.dynamics import Dynamics
from spikebench.neurons.lif import RecurrentNeuron
from spikebench.registry import NEURONS


@NEURONS.register(name="ilif")
class ILIF(RecurrentNeuron):
    """Integer LIF of SpikeYOLO (Luo et al., ECCV 2024): integer spikes 0..D, soft reset.

    An integer is D binary spikes: `binary_steps` gives them, and since a linear layer W without
    bias keeps sums, `sum_steps(W(binary_steps(n, D)), D) == W(n)`. Training works with integers;
    with `spike_driven`, evaluation gives the binary spikes `(T * D, ...)` instead.

    Args:
        tau: membrane time constant, in time steps; the published code's 4/3 keeps a quarter.
        threshold: membrane of one spike; positive.
        levels: D, the largest integer; at least 2.
        detach_reset: whether the reset passes no gradient to the spike.
        learn_threshold: whether the threshold is a parameter.
        spike_driven: whether evaluation gives binary spikes; what follows must be a linear layer
            without bias and `sum_steps`.

    Example:
        >>> ILIF()(torch.tensor([[2.7], [0.6]])).flatten().tolist()
        [3.0, 1.0]
    """

    def __init__(
        self,
        tau: float = 4 / 3,
        threshold: float = 1.0,
        levels: int = 4,
        detach_reset: bool = True,
        learn_threshold: bool = False,
        spike_driven: bool = False,
    ) -> None:
        if levels < 2:
            raise ValueError(f"levels is {levels}; integer spikes have at least 2: use LIF for 1")
        dynamics = Dynamics(
            tau=tau,
            decay_input=False,
            scale_membrane=True,
            firing="round",
            threshold=threshold,
            v_reset=None,
            detach_reset=detach_reset,
            levels=levels,
        )
        super().__init__(dynamics, learn_threshold)
        self.spike_driven = spike_driven
        if spike_driven:
            self.update_cost = self.update_cost._replace(outputs=levels)

    def forward(self, x: Tensor) -> Tensor:
        """Currents `(T, ...)` to integers `(T, ...)`, or to binary spikes `(T * D, ...)`."""
        integers = super().forward(x)
        if self.spike_driven and not self.training:
            return binary_steps(integers, self.spike_levels)
        return integers

    def to_spikingjelly(self) -> nn.Module:
        """Build an `ILIFNode`; see `Neuron.to_spikingjelly`."""
        from spikingjelly.activation_based.neuron import ILIFNode
        from spikingjelly.activation_based.surrogate import MultiLevelSpikeCount

        if self.spike_driven:
            raise ValueError(f"SpikingJelly has no counterpart of {self}: its spikes are binary")
        arguments = self.spikingjelly_arguments()
        del arguments["v_reset"]  # it is always soft
        arguments["surrogate_function"] = MultiLevelSpikeCount(self.spike_levels)
        return ILIFNode(self.dynamics.tau, **arguments)


def binary_steps(integers: Tensor, levels: int) -> Tensor:
    """Integer spikes `(T, ...)` as D binary spikes for each time step, `(T * D, ...)`.

    Example:
        >>> binary_steps(torch.tensor([[2.0], [0.0]]), 3).flatten().tolist()
        [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    """
    steps = [(integers >= step).to(integers.dtype) for step in range(1, levels + 1)]
    return torch.stack(steps, dim=1).flatten(0, 1)


def sum_steps(x: Tensor, levels: int) -> Tensor:
    """Sum what came of binary spikes, `(T * D, ...)`, over the D of each time step: `(T, ...)`."""
    return x.unflatten(0, (-1, levels)).sum(1)

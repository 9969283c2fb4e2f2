"""The parallel spiking neuron, which sees all time steps at once."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from spikebench.neurons.base import Neuron, UpdateCost
from spikebench.neurons.surrogate import spike, spikingjelly_surrogate, surrogate_settings
from spikebench.registry import NEURONS


@NEURONS.register(name="psn")
class PSN(Neuron):
    r"""Parallel spiking neuron (Fang et al., NeurIPS 2023, arXiv 2304.12760).

    h = W x + b, s = 1 where h >= 0: a learnt matrix (T, T) over time takes the place of charge and
    reset, so that all time steps come at once.

    Args:
        time_steps: T.
        threshold: -b at first.
        surrogate: as in `LIF`.
        alpha: as in `LIF`.
    """

    causal = False

    def __init__(
        self,
        time_steps: int,
        threshold: float = 1.0,
        surrogate: str = "arctan",
        alpha: float | None = None,
    ) -> None:
        super().__init__()
        settings = surrogate_settings(surrogate, alpha)
        self.surrogate: str = settings["surrogate"]
        self.alpha: float = settings["alpha"]
        self.weight = nn.Parameter(torch.empty(time_steps, time_steps))
        self.bias = nn.Parameter(torch.full((time_steps, 1), -threshold))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self.update_cost = UpdateCost(time_steps, time_steps, states=0)

    @classmethod
    def for_time_steps(cls, time_steps: int, learn_threshold: bool = True, **options: Any) -> PSN:
        """Build it for T; it always learns its thresholds, which are its bias."""
        return cls(time_steps, **options)

    def forward(self, x: Tensor) -> Tensor:
        """Currents `(T, ...)` to spikes of the same shape.

        Raises:
            ValueError: the input has another number of time steps.
        """
        if len(x) != len(self.weight):
            raise ValueError(
                f"{len(x)} time steps for a PSN with time_steps={len(self.weight)}: its weight is "
                "a matrix over time, so T is fixed when it is built"
            )
        half = x.dtype in (torch.float16, torch.bfloat16)
        with torch.autocast(x.device.type, enabled=False):
            h = torch.addmm(self.bias, self.weight, (x.float() if half else x).flatten(1))
            return spike(h, self.surrogate, self.alpha).to(x.dtype).view_as(x)

    def to_spikingjelly(self) -> nn.Module:
        """Build SpikingJelly's `PSN` with the same weights; see `Neuron.to_spikingjelly`."""
        from spikingjelly.activation_based.neuron import PSN as Peer

        peer = Peer(len(self.weight), spikingjelly_surrogate(self.surrogate, self.alpha))
        peer.weight, peer.bias = self.weight, self.bias
        return peer

    def extra_repr(self) -> str:
        """Return the settings that `repr` shows."""
        return f"time_steps={len(self.weight)}, surrogate={self.surrogate}"

"""Neurons with a membrane that fire one spike at a threshold: LIF, IF and parametric LIF."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from spikebench.neurons import backends
from spikebench.neurons.base import LEAKY, Neuron
from spikebench.neurons.dynamics import Dynamics
from spikebench.neurons.surrogate import spikingjelly_surrogate, surrogate_settings
from spikebench.registry import NEURONS


class RecurrentNeuron(Neuron):
    """A neuron that `Dynamics` describes; `leak` and `threshold` may be learnt.

    Args:
        dynamics: the neuron's equations and constants.
        learn_threshold: whether the threshold is a parameter.

    Raises:
        ValueError: a constant has no meaning, such as a negative threshold.
    """

    leak: Tensor | None = None
    learnt_threshold: nn.Parameter | None

    def __init__(self, dynamics: Dynamics, learn_threshold: bool = False) -> None:
        super().__init__()
        if dynamics.tau is not None and dynamics.tau < 1:
            raise ValueError(
                f"tau is {dynamics.tau}; a membrane time constant is at least 1 time step"
            )
        if dynamics.threshold <= 0:
            raise ValueError(f"threshold is {dynamics.threshold}; it must be positive")
        if dynamics.v_reset is not None and dynamics.v_reset >= dynamics.threshold:
            raise ValueError(
                f"v_reset is {dynamics.v_reset}; it must lie below the threshold "
                f"({dynamics.threshold}), or be None for a soft reset"
            )
        if dynamics.alpha <= 0:
            raise ValueError(f"alpha is {dynamics.alpha}; it must be positive")
        self.dynamics = dynamics
        self.spike_levels = dynamics.levels
        self.update_cost = Neuron.update_cost if dynamics.tau is None else LEAKY
        learnt = nn.Parameter(torch.tensor(dynamics.threshold)) if learn_threshold else None
        self.register_parameter("learnt_threshold", learnt)

    @property
    def threshold(self) -> float:
        """Membrane at which the neuron fires, at first if it is learnt."""
        return self.dynamics.threshold

    def forward(self, x: Tensor) -> Tensor:
        """Currents `(T, ...)` to spikes of the same shape."""
        return backends.run(self.dynamics, x, self.leak, self.learnt_threshold)

    def spikingjelly_arguments(self) -> dict[str, Any]:
        """Arguments that all of SpikingJelly's neurons with a membrane take.

        Raises:
            ValueError: the threshold is learnt, which theirs never is.
        """
        if self.learnt_threshold is not None:
            raise ValueError(f"SpikingJelly has no counterpart of {self}: its threshold is learnt")
        d = self.dynamics
        return {
            "v_threshold": d.threshold,
            "v_reset": d.v_reset,
            "surrogate_function": spikingjelly_surrogate(d.surrogate, d.alpha),
            "detach_reset": d.detach_reset,
            "step_mode": "m",
        }

    def extra_repr(self) -> str:
        """Return the settings that `repr` shows."""
        default = Dynamics()
        shown = {
            name: value
            for name, value in vars(self.dynamics).items()
            if value != getattr(default, name) or name in ("tau", "threshold")
        }
        return ", ".join(f"{name}={value}" for name, value in shown.items())


@NEURONS.register(name="lif")
class LIF(RecurrentNeuron):
    """Leaky integrate-and-fire; the defaults are those of Spike-driven Transformer V2.

    Args:
        tau: membrane time constant, in time steps; greater than or equal to 1.
        threshold: membrane at which the neuron fires; positive.
        v_reset: membrane after a spike (hard reset), or None: the threshold is subtracted (soft).
        decay_input: whether the input decays as the membrane does.
        detach_reset: whether the reset passes no gradient to the spike.
        surrogate: "sigmoid", "arctan", "rectangular" or "triangular".
        alpha: its sharpness; default 4 for sigmoid, 2 for arctan, else 1.
        learn_threshold: whether the threshold is a parameter.

    Example:
        >>> LIF()(torch.tensor([[1.0], [1.8], [1.0]])).flatten().tolist()
        [0.0, 1.0, 0.0]
    """

    def __init__(
        self,
        tau: float = 2.0,
        threshold: float = 1.0,
        v_reset: float | None = 0.0,
        decay_input: bool = True,
        detach_reset: bool = True,
        surrogate: str = "sigmoid",
        alpha: float | None = None,
        learn_threshold: bool = False,
    ) -> None:
        dynamics = Dynamics(
            tau=tau,
            decay_input=decay_input,
            threshold=threshold,
            v_reset=v_reset,
            detach_reset=detach_reset,
            **surrogate_settings(surrogate, alpha),
        )
        super().__init__(dynamics, learn_threshold)

    def to_spikingjelly(self) -> nn.Module:
        """Build a `LIFNode`; see `Neuron.to_spikingjelly`."""
        from spikingjelly.activation_based.neuron import LIFNode

        assert self.dynamics.tau is not None
        return LIFNode(
            float(self.dynamics.tau), self.dynamics.decay_input, **self.spikingjelly_arguments()
        )


@NEURONS.register(name="if")
class IF(RecurrentNeuron):
    """Integrate-and-fire: no leak. Arguments as in `LIF`.

    Example:
        >>> IF()(torch.full((4, 1), 0.5)).flatten().tolist()
        [0.0, 1.0, 0.0, 1.0]
    """

    def __init__(
        self,
        threshold: float = 1.0,
        v_reset: float | None = 0.0,
        detach_reset: bool = True,
        surrogate: str = "sigmoid",
        alpha: float | None = None,
        learn_threshold: bool = False,
    ) -> None:
        dynamics = Dynamics(
            tau=None,
            decay_input=False,
            threshold=threshold,
            v_reset=v_reset,
            detach_reset=detach_reset,
            **surrogate_settings(surrogate, alpha),
        )
        super().__init__(dynamics, learn_threshold)

    def to_spikingjelly(self) -> nn.Module:
        """Build an `IFNode`; see `Neuron.to_spikingjelly`."""
        from spikingjelly.activation_based.neuron import IFNode

        return IFNode(**self.spikingjelly_arguments())


@NEURONS.register(name="plif")
class PLIF(RecurrentNeuron):
    """Parametric LIF (Fang et al., ICCV 2021): the leak 1 / tau = sigmoid(w) is learnt.

    Args:
        init_tau: the time constant at first; greater than 1.
        **others: as in `LIF`, but for `tau`.
    """

    def __init__(self, init_tau: float = 2.0, threshold: float = 1.0, **others) -> None:
        if init_tau <= 1:
            raise ValueError(f"init_tau is {init_tau}; expected more than 1 time step")
        like = LIF(init_tau, threshold, **others)
        super().__init__(like.dynamics, like.learnt_threshold is not None)
        self.w = nn.Parameter(torch.tensor(-math.log(init_tau - 1)))

    @property
    def leak(self) -> Tensor:  # type: ignore[override]
        """1 / tau, a scalar."""
        return self.w.sigmoid()

    def to_spikingjelly(self) -> nn.Module:
        """Build a `ParametricLIFNode` with the same leak; see `Neuron.to_spikingjelly`."""
        from spikingjelly.activation_based.neuron import ParametricLIFNode

        node = ParametricLIFNode(
            decay_input=self.dynamics.decay_input, **self.spikingjelly_arguments()
        )
        node.w = self.w
        return node

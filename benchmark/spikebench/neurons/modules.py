"""Spiking neurons as layers: currents (T, ...) to spikes of the same shape."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from spikebench.neurons import backends
from spikebench.neurons.dynamics import Dynamics
from spikebench.neurons.surrogate import DEFAULT_ALPHA, spike
from spikebench.registry import unknown_name


class UpdateCost(NamedTuple):
    """What one neuron does at one time step, and what it keeps until the next.

    Attributes:
        additions: charging, leaking and resetting the membrane; comparisons are free.
        multiplications: the leak, and other factors that do not fold into weights.
        states: values kept, such as the membrane.
        outputs: spikes given per update: more than one where an integer spike comes out as binary
            spikes of several time steps.
    """

    additions: int
    multiplications: int
    states: int
    outputs: int = 1


class Neuron(nn.Module):
    """Base of all neurons: forward maps currents `(T, ...)` to spikes of the same shape.

    Attributes:
        spike_levels: the largest spike; spikes are whole numbers from 0 to it.
        update_cost: what an update costs.
        causal: whether a spike depends on no later time step.
    """

    causal = True
    spike_levels = 1
    update_cost = UpdateCost(additions=1, multiplications=0, states=1)


def update_cost(neuron: nn.Module) -> UpdateCost:
    """What an update of a neuron costs; of a foreign one, what its having a `tau` suggests."""
    if isinstance(neuron, Neuron):
        return neuron.update_cost
    return _LEAKY if hasattr(neuron, "tau") else Neuron.update_cost


def is_neuron(module: nn.Module) -> bool:
    """Whether a module is one of ours, one of SpikingJelly's, or has a `v_threshold`.

    A module that only keeps a threshold for the layers and neurons inside it is none.
    """
    if isinstance(module, Neuron):
        return True
    if any(kind.__module__.startswith(_SPIKINGJELLY) for kind in type(module).__mro__):
        return True
    if not hasattr(module, "v_threshold"):
        return False
    holds_weights = any(weight.dim() > 1 for weight in module.parameters())
    return not holds_weights and not any(is_neuron(child) for child in module.children())


_SPIKINGJELLY = "spikingjelly.activation_based.neuron"
_LEAKY = UpdateCost(additions=2, multiplications=1, states=1)


class _Recurrent(Neuron):
    """A neuron of the family in `dynamics`; `leak` and `threshold` may be learnt."""

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
        self.update_cost = Neuron.update_cost if dynamics.tau is None else _LEAKY
        learnt = nn.Parameter(torch.tensor(dynamics.threshold)) if learn_threshold else None
        self.register_parameter("learnt_threshold", learnt)

    @property
    def threshold(self) -> float:
        """Membrane at which the neuron fires, at first if it is learnt."""
        return self.dynamics.threshold

    def forward(self, x: Tensor) -> Tensor:
        """Currents `(T, ...)` to spikes of the same shape."""
        return backends.run(self.dynamics, x, self.leak, self.learnt_threshold)

    def extra_repr(self) -> str:
        """What distinguishes this layer from another."""
        default = Dynamics()
        shown = {
            name: value
            for name, value in vars(self.dynamics).items()
            if value != getattr(default, name) or name in ("tau", "threshold")
        }
        return ", ".join(f"{name}={value}" for name, value in shown.items())


def _surrogate(name: str, alpha: float | None) -> tuple[str, float]:
    if name not in DEFAULT_ALPHA:
        raise unknown_name("surrogate", name, DEFAULT_ALPHA)
    return name, DEFAULT_ALPHA[name] if alpha is None else alpha


class LIF(_Recurrent):
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
        shape = _surrogate(surrogate, alpha)
        super().__init__(
            Dynamics(tau, decay_input, threshold, v_reset, detach_reset, 1, *shape), learn_threshold
        )


class IF(_Recurrent):
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
        shape = _surrogate(surrogate, alpha)
        super().__init__(
            Dynamics(None, False, threshold, v_reset, detach_reset, 1, *shape), learn_threshold
        )


class PLIF(_Recurrent):
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


class ILIF(_Recurrent):
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
        super().__init__(
            Dynamics(tau, False, threshold, None, detach_reset, levels), learn_threshold
        )
        self.spike_driven = spike_driven
        if spike_driven:
            self.update_cost = self.update_cost._replace(outputs=levels)

    def forward(self, x: Tensor) -> Tensor:
        """Currents `(T, ...)` to integers `(T, ...)`, or to binary spikes `(T * D, ...)`."""
        integers = super().forward(x)
        if self.spike_driven and not self.training:
            return binary_steps(integers, self.spike_levels)
        return integers


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
        self.surrogate, self.alpha = _surrogate(surrogate, alpha)
        self.weight = nn.Parameter(torch.empty(time_steps, time_steps))
        self.bias = nn.Parameter(torch.full((time_steps, 1), -threshold))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self.update_cost = UpdateCost(time_steps, time_steps, states=0)

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

    def extra_repr(self) -> str:
        """What distinguishes this layer from another."""
        return f"time_steps={len(self.weight)}, surrogate={self.surrogate}"


NEURONS: dict[str, type[Neuron]] = {
    neuron.__name__.lower(): neuron for neuron in (LIF, IF, PLIF, ILIF, PSN)
}
"""Names to neurons, as arguments of backbones give them."""


def neuron_factory(
    neuron: str | Callable[..., nn.Module] = "lif", time_steps: int = 1
) -> Callable[..., nn.Module]:
    """What builds the neurons of a backbone.

    Args:
        neuron: a name in `NEURONS`, or a function of the same keyword arguments.
        time_steps: T of the backbone, which PSN needs.

    Returns:
        A function of the keywords `threshold` and `learn_threshold`, as `LIF` has them. PSN always
        learns its thresholds: they are its bias.

    Raises:
        UnknownNameError: no neuron has that name; the message suggests near ones.
    """
    if not isinstance(neuron, str):
        return neuron
    if neuron not in NEURONS:
        raise unknown_name("neuron", neuron, NEURONS)
    if neuron == "psn":
        return lambda threshold=1.0, learn_threshold=True: PSN(time_steps, threshold)
    return NEURONS[neuron]

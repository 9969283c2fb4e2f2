"""The base class of spiking neurons: modules from currents (T, ...) to spikes (T, ...)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, NamedTuple

from torch import nn

from spikebench.registry import NEURONS

NeuronName = Annotated[str, NEURONS]
"""The name of a registered neuron, as an argument of a backbone; `spikebench list` shows them."""


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

    A new neuron is a subclass, registered under the name that backbones take:

        @NEURONS.register(name="my_neuron")
        class MyNeuron(Neuron): ...

    Attributes:
        causal: whether a spike depends on no later time step.
        spike_levels: the largest spike; spikes are whole numbers from 0 to it.
        update_cost: what an update costs.
    """

    causal = True
    spike_levels = 1
    update_cost = UpdateCost(additions=1, multiplications=0, states=1)

    @classmethod
    def for_time_steps(cls, time_steps: int, **options: Any) -> Neuron:
        """Build the neuron of a backbone of T time steps; a neuron with weights over time needs T.

        Args:
            time_steps: T.
            **options: arguments of the neuron. Backbones give `threshold` and `learn_threshold`.
        """
        return cls(**options)

    def to_spikingjelly(self) -> nn.Module:
        """Build SpikingJelly's neuron with the same spikes and gradients, in multi-step mode.

        Raises:
            ValueError: SpikingJelly has none.
        """
        raise ValueError(f"SpikingJelly has no counterpart of {self}; speed it alone")


LEAKY = UpdateCost(additions=2, multiplications=1, states=1)
"""What an update costs where the membrane leaks."""

_SPIKINGJELLY = "spikingjelly.activation_based.neuron"


def update_cost(neuron: nn.Module) -> UpdateCost:
    """What an update of a neuron costs; a neuron of another package leaks if it has a `tau`."""
    if isinstance(neuron, Neuron):
        return neuron.update_cost
    return LEAKY if hasattr(neuron, "tau") else Neuron.update_cost


def is_neuron(module: nn.Module) -> bool:
    """Whether a module is one of ours, one of SpikingJelly's, or has a `v_threshold`.

    A module that keeps a threshold only for the layers and neurons inside it does not count.
    """
    if isinstance(module, Neuron) or _is_spikingjelly(module):
        return True
    if not hasattr(module, "v_threshold"):
        return False
    holds_weights = any(weight.dim() > 1 for weight in module.parameters())
    return not holds_weights and not any(is_neuron(child) for child in module.children())


def spike_levels(module: nn.Module) -> int | None:
    """The largest spike of a neuron; None if a module is not known to be one.

    A neuron says so in an int attribute `spike_levels`: 1 if its spikes are 0 or 1, D if they are
    whole numbers 0..D. SpikingJelly's neurons are known without it.
    """
    declared = getattr(module, "spike_levels", None)
    if isinstance(declared, int):
        return declared
    if _is_spikingjelly(module) and hasattr(module, "surrogate_function"):
        return getattr(module.surrogate_function, "max_spike_count", 1)
    return None


def _is_spikingjelly(module: nn.Module) -> bool:
    """Whether a module is one of SpikingJelly's neurons, which need not be installed."""
    return any(kind.__module__.startswith(_SPIKINGJELLY) for kind in type(module).__mro__)


def neuron_factory(
    neuron: str | Callable[..., nn.Module] = "lif", time_steps: int = 1
) -> Callable[..., nn.Module]:
    """Return what builds the neurons of a backbone.

    Args:
        neuron: a name in `spikebench.registry.NEURONS`, or a function of the same keyword
            arguments.
        time_steps: T of the backbone.

    Returns:
        A function of the keywords `threshold` and `learn_threshold`, as `LIF` has them.

    Raises:
        UnknownNameError: no neuron has that name; the message suggests near ones.

    Example:
        >>> neuron_factory("psn", time_steps=4)(threshold=0.5)
        PSN(time_steps=4, surrogate=arctan)
    """
    found = NEURONS.get(neuron) if isinstance(neuron, str) else neuron
    build = getattr(found, "for_time_steps", None)
    return found if build is None else partial(build, time_steps)

"""The clause on spikes, and what counts as a neuron."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from spikebench.backbones.contract.builder import Builder, Violation, run

_SPIKINGJELLY = ("BaseNode", "SimpleBaseNode", "GatedLIFNode", "PSN", "MaskedPSN", "SlidingPSN")


def spike_levels(module: nn.Module) -> int | None:
    """The largest spike of a neuron; None if a module is not known to be one.

    A neuron has an int attribute `spike_levels`: 1 if its spikes are 0 or 1, D if they are whole
    numbers 0..D. SpikingJelly's neurons are known without it.
    """
    declared = getattr(module, "spike_levels", None)
    if isinstance(declared, int):
        return declared
    # a module of SpikingJelly has imported it: no need to do so for all others
    spikingjelly = sys.modules.get("spikingjelly.activation_based.neuron")
    kinds = tuple(getattr(spikingjelly, name) for name in _SPIKINGJELLY if spikingjelly)
    if isinstance(module, kinds):
        surrogate: Any = module.surrogate_function
        return getattr(surrogate, "max_spike_count", 1)
    return None


def spike_range(builder: Builder) -> None:
    """Neurons give whole numbers from 0 to their `spike_levels`, in training and evaluation."""
    model = builder.settled()
    fired: list[str] = []
    for name, module in model.named_modules():
        levels = spike_levels(module)
        if levels is not None:
            module.register_forward_hook(_check_of(name, levels, fired))
    for training in (True, False):
        run(model.train(training), builder.images(2))
    if not fired:
        raise Violation(
            "no neuron was found in the forward; give every neuron module an int attribute "
            "`spike_levels`, the largest spike: 1 if spikes are 0 or 1"
        )


def _check_of(name: str, levels: int, fired: list[str]) -> Callable[..., None]:
    def check(module: nn.Module, inputs: Any, spikes: Any) -> None:
        fired.append(name)
        place = f"{name} ({type(module).__name__})"
        if not isinstance(spikes, Tensor):
            raise Violation(
                f"returns a {type(spikes).__name__}; expected a tensor of spikes", place
            )
        wrong = (spikes != spikes.round()) | (spikes < 0) | (spikes > levels)
        if wrong.any():
            expected = "0 or 1" if levels == 1 else f"whole numbers from 0 to {levels}"
            value = spikes[wrong].flatten()[0].item()
            raise Violation(
                f"a spike of {value:.4g}; with spike_levels = {levels} they are {expected}", place
            )

    return check

"""The clause on spikes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from spikebench.backbones.contract.builder import Builder, Violation, run
from spikebench.neurons import spike_levels


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

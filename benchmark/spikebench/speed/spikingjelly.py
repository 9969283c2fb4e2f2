"""SpikingJelly's neurons in the place of ours, with the same dynamics; an optional package."""

from __future__ import annotations

import os
from importlib.util import find_spec

import torch
from torch import nn

from spikebench.errors import UserError
from spikebench.neurons import Neuron

PEER = "spikingjelly"


def peers(device: str) -> list[str]:
    """The implementations of SpikingJelly's LIF that run here, as contenders name them.

    Raises:
        UserError: it is not installed.
    """
    if find_spec(PEER) is None:
        raise UserError(
            "SpikingJelly is not installed: pip install 'spikingjelly>=2', or leave --against out"
        )
    from spikingjelly.activation_based.functional import neuron_implementation

    if device == "cpu":
        return [f"{PEER}-torch"]
    found = [str(neuron_implementation("lif", torch.device(device))["implementation"])]
    if found == ["cuda"] and find_spec("triton"):
        found.append("triton")
    return [f"{PEER}-{name}" for name in found]


def choose(peer: str) -> None:
    """Choose the implementation on CUDA, as `peers` names it; before SpikingJelly is imported."""
    os.environ["SJ_LIF_CUDA_IMPLEMENTATION"] = peer.removeprefix(f"{PEER}-")


def replace_neurons(model: nn.Module) -> nn.Module:
    """Replace each neuron of a model by its SpikingJelly counterpart, in place; weights stay.

    Raises:
        ValueError: the model has no neuron of ours, or one without a counterpart.
    """
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, Neuron)]
    if not found:
        raise ValueError(f"{type(model).__name__} has no neuron of spikebench.neurons to replace")
    for name, neuron in found:
        if name == "":
            return neuron.to_spikingjelly()
        model.set_submodule(name, neuron.to_spikingjelly())
    return model


def reset(model: nn.Module) -> None:
    """Forget the membranes of the last forward pass."""
    from spikingjelly.activation_based.functional import reset_net

    reset_net(model)

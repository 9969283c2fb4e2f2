"""SpikingJelly's neurons in the place of ours, with the same dynamics; an optional package."""

from __future__ import annotations

import os
from importlib.util import find_spec

import torch
from torch import nn

from spikebench.errors import UserError
from spikebench.neurons import LIF, Neuron

PEER = "spikingjelly"

_SURROGATES = {"sigmoid": "Sigmoid", "arctan": "ATan"}


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
    """Put SpikingJelly's LIF in the place of each LIF of a model, in place; weights stay.

    Raises:
        ValueError: the model has no neuron of ours, or one that is no LIF (see `lif_node`).
    """
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, Neuron)]
    if not found:
        raise ValueError(f"{type(model).__name__} has no neuron of spikebench.neurons to replace")
    for name, neuron in found:
        if name == "":
            return lif_node(neuron)
        model.set_submodule(name, lif_node(neuron, name))
    return model


def lif_node(neuron: Neuron, name: str = "the neuron") -> nn.Module:
    """SpikingJelly's multi-step LIFNode with the constants of one of our LIF layers.

    Raises:
        ValueError: there is none: another neuron, a learnt threshold, an unmatched surrogate.
    """
    from spikingjelly.activation_based import neuron as nodes
    from spikingjelly.activation_based import surrogate

    if not isinstance(neuron, LIF) or neuron.learnt_threshold is not None:
        raise ValueError(f"{name} is {neuron}; SpikingJelly's LIFNode can only stand for a LIF")
    constants = neuron.dynamics
    assert constants.tau is not None
    if constants.surrogate not in _SURROGATES:
        raise ValueError(
            f"{name} has the surrogate {constants.surrogate!r}; expected one of "
            f"{', '.join(_SURROGATES)}, which SpikingJelly has too"
        )
    return nodes.LIFNode(
        tau=float(constants.tau),
        decay_input=constants.decay_input,
        v_threshold=constants.threshold,
        v_reset=constants.v_reset,
        surrogate_function=getattr(surrogate, _SURROGATES[constants.surrogate])(constants.alpha),
        detach_reset=constants.detach_reset,
        step_mode="m",
    )


def reset(model: nn.Module) -> None:
    """Forget the membranes of the last forward pass."""
    from spikingjelly.activation_based.functional import reset_net

    reset_net(model)

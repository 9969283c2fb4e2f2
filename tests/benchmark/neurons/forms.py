"""Compares a form of the neurons with the reference; run as a module where it needs a process."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable

import torch
from torch import Tensor

from spikebench.neurons import IF, ILIF, LIF, PLIF, SURROGATES, Neuron, use_backend

CHOSEN: list[Neuron] = [
    LIF(),
    LIF(tau=3.0, threshold=0.5, v_reset=None, decay_input=False, surrogate="triangular"),
    LIF(tau=1.7, v_reset=-0.3, detach_reset=False, surrogate="arctan", learn_threshold=True),
    IF(v_reset=None, detach_reset=False, surrogate="rectangular"),
    PLIF(init_tau=1.7, v_reset=None, learn_threshold=True),
    PLIF(decay_input=False, detach_reset=False),
    ILIF(detach_reset=False),
    ILIF(threshold=0.7, learn_threshold=True),
]
"""Together they use every setting in every way at least once."""


def every_neuron() -> list[Neuron]:
    """All combinations of settings."""
    neurons: list[Neuron] = []
    switch = (False, True)
    for surrogate, v_reset, detach, learn in itertools.product(
        SURROGATES, (0.0, None, -0.3), switch, switch
    ):
        shared = {
            "v_reset": v_reset,
            "detach_reset": detach,
            "surrogate": surrogate,
            "learn_threshold": learn,
        }
        neurons.append(IF(**shared))
        for decay_input in switch:
            neurons.append(LIF(1.7, decay_input=decay_input, **shared))
            neurons.append(PLIF(1.7, decay_input=decay_input, **shared))
    for detach, learn in itertools.product(switch, switch):
        neurons.append(ILIF(threshold=0.7, detach_reset=detach, learn_threshold=learn))
    return neurons


def currents(*shape: int, seed: int = 0, device: str = "cpu") -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (1.5 * torch.randn(shape, generator=generator) + 0.3).to(device)


def spikes_and_gradients(neuron: Neuron, x: Tensor, form: str) -> tuple[Tensor, list[Tensor]]:
    x = x.detach().requires_grad_()
    with use_backend(form):
        spikes = neuron(x)
    weight = torch.rand(spikes.shape, generator=torch.Generator().manual_seed(9)).to(spikes)
    wanted = [x, *neuron.parameters()]
    return spikes, list(torch.autograd.grad((spikes * weight).sum(), wanted))


def assert_same(neuron: Neuron, x: Tensor, form: str) -> None:
    """Spikes to the bit, gradients to 1e-5 of their size."""
    spikes, grads = spikes_and_gradients(neuron, x, form)
    expected, expected_grads = spikes_and_gradients(neuron, x, "reference")
    assert 0 < expected.mean() < neuron.spike_levels, neuron
    assert torch.equal(spikes, expected), neuron
    assert spikes.dtype == x.dtype
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        scale = float(expected_grad.abs().max())
        tolerance = 1e-5 if x.dtype == torch.float32 else 1e-2
        torch.testing.assert_close(
            grad,
            expected_grad,
            rtol=tolerance,
            atol=tolerance * scale,
            msg=lambda m: f"{neuron}: {m}",
        )


def compare(neurons: Iterable[Neuron], form: str) -> int:
    done = 0
    for neuron in neurons:
        for time_steps in (1, 4):
            assert_same(neuron, currents(time_steps, 3, 5, 43, seed=time_steps), form)
            done += 1
    return done


if __name__ == "__main__":
    print(compare(every_neuron(), sys.argv[1]))

"""Neurons against SpikingJelly's: spikes to the bit, gradients to 1e-5, in float32."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from spikebench.neurons import IF, ILIF, LIF, PLIF, PSN, SURROGATES, Neuron, use_backend
from spikebench.neurons.backends import available_backends
from tests.benchmark.neurons.forms import currents

peer: Any = pytest.importorskip("spikingjelly.activation_based.neuron", reason="no SpikingJelly")
surrogate: Any = pytest.importorskip("spikingjelly.activation_based.surrogate")

FORMS = [name for name in ("reference", "compiled") if available_backends()[name] is None]


def assert_same(ours: Neuron, theirs: Any, time_steps: int, form: str = "reference") -> None:
    x, y = (currents(time_steps, 6, 7, 11, seed=1).requires_grad_() for _ in range(2))
    with use_backend(form):
        spikes = ours(x)
    expected = theirs(y)
    assert 0 < spikes.mean() < ours.spike_levels
    assert torch.equal(spikes, expected)
    weight = torch.randn(spikes.shape, generator=torch.Generator().manual_seed(2))
    wanted = [x, *ours.parameters()]
    grads = torch.autograd.grad((spikes * weight).sum(), wanted)
    expected_grads = torch.autograd.grad((expected * weight).sum(), [y, *theirs.parameters()])
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        scale = float(expected_grad.abs().max())
        torch.testing.assert_close(grad, expected_grad, rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.parametrize("time_steps", [1, 4])
@pytest.mark.parametrize("form", FORMS)
def test_lif_of_the_paper(form: str, time_steps: int):
    theirs = peer.LIFNode(
        tau=2.0, surrogate_function=surrogate.Sigmoid(4.0), detach_reset=True, step_mode="m"
    )
    assert_same(LIF(), theirs, time_steps, form)


@pytest.mark.parametrize(
    ("v_reset", "detach", "decay_input", "name"),
    list(itertools.product((0.0, None, -0.3), (False, True), (False, True), SURROGATES)),
)
def test_lif_if_and_plif(v_reset, detach, decay_input, name):
    shared = {"v_reset": v_reset, "detach_reset": detach, "surrogate": name, "alpha": 1.5}
    for ours, kind in (
        (LIF(3.0, 0.8, decay_input=decay_input, **shared), peer.LIFNode),
        (IF(0.8, **shared), peer.IFNode),
        (PLIF(3.0, 0.8, decay_input=decay_input, **shared), peer.ParametricLIFNode),
    ):
        theirs = ours.to_spikingjelly()
        assert type(theirs) is kind
        assert_same(ours, theirs, time_steps=4)


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize(("tau", "threshold", "levels"), [(4 / 3, 1.0, 4), (2.0, 0.5, 8)])
def test_integer_lif(tau: float, threshold: float, levels: int, detach: bool):
    ours = ILIF(tau, threshold, levels, detach)
    assert type(ours.to_spikingjelly()) is peer.ILIFNode
    assert_same(ours, ours.to_spikingjelly(), time_steps=4)


def test_parallel_neuron():
    torch.manual_seed(0)
    ours = PSN(4)
    assert type(ours.to_spikingjelly()) is peer.PSN
    assert_same(ours, ours.to_spikingjelly(), time_steps=4)


@pytest.mark.parametrize(
    ("neuron", "reason"),
    [
        (LIF(learn_threshold=True), "learnt"),
        (ILIF(spike_driven=True), "binary"),
        (Neuron(), "Neuron"),
    ],
)
def test_a_neuron_without_a_counterpart_is_refused(neuron: Neuron, reason: str):
    with pytest.raises(ValueError, match=reason):
        neuron.to_spikingjelly()

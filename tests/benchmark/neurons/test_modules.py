from __future__ import annotations

import pytest
import torch
from torch import nn

from spikebench.neurons import (
    IF,
    ILIF,
    LIF,
    NEURONS,
    PLIF,
    PSN,
    Neuron,
    binary_steps,
    neuron_factory,
    sum_steps,
)
from spikebench.registry import UnknownNameError


def of(neuron: Neuron, *currents: float) -> list[float]:
    return neuron(torch.tensor(currents)[:, None]).flatten().tolist()


def test_sequences_computed_by_hand():
    # soft reset: h = 1.5, (0.5 + 1.5) / 2 = 1, (0 + 1.5) / 2
    assert of(LIF(v_reset=None), 3.0, 1.5, 1.5) == [1, 1, 0]
    # the input does not decay: h = 0.8, 0.4 + 0.7, 0 + 0.9
    assert of(LIF(decay_input=False), 0.8, 0.7, 0.9) == [0, 1, 0]
    # at rest at -1: h = -1 + 4 / 2, then -1 + 3.9 / 2
    assert of(LIF(v_reset=-1.0), 4.0, 3.9) == [1, 0]
    assert of(IF(), 0.5, 0.5, 0.75, 0.25) == [0, 1, 0, 1]
    assert of(IF(v_reset=None), 1.5, 0.5, 0.5) == [1, 1, 0]
    # tau = 4: h = 1, then 0.25
    assert of(PLIF(init_tau=4.0), 4.0, 1.0) == [1, 0]
    # a quarter stays: h = 2.6, (2.6 - 3) / 4 + 0.7, (0.6 - 1) / 4 + 9
    assert of(ILIF(), 2.6, 0.7, 9.0) == [3, 1, 4]


def test_a_parametric_lif_starts_as_its_lif_and_learns():
    x = 2 * torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    neuron = PLIF(init_tau=2.0)
    assert torch.equal(neuron(x), LIF(tau=2.0)(x))
    neuron(x).sum().backward()
    assert neuron.w.grad is not None
    assert neuron.w.grad.abs() > 0
    assert set(neuron.state_dict()) == {"w"}
    with pytest.raises(ValueError, match=r"init_tau is 1.0; expected more than 1"):
        PLIF(init_tau=1.0)


@pytest.mark.parametrize("neuron", [LIF, IF, PLIF, ILIF])
def test_a_learnt_threshold_gets_a_gradient_that_finite_charges_agree_with(neuron):
    layer = neuron(learn_threshold=True)
    assert layer.state_dict()["learnt_threshold"] == 1
    x = 2 * torch.randn(3, 400, generator=torch.Generator().manual_seed(0))
    layer(x).sum().backward()
    assert layer.learnt_threshold.grad < 0  # a higher threshold, fewer spikes
    with torch.no_grad():
        before = layer(x).sum()
        layer.learnt_threshold.fill_(1.5)
        assert layer(x).sum() < before


def test_integers_are_binary_spikes_over_more_steps():
    x = 3 * torch.randn(3, 2, 8, 5, 5, generator=torch.Generator().manual_seed(0))
    integers = ILIF(levels=4)(x)
    assert integers.unique().tolist() == [0, 1, 2, 3, 4]
    binary = binary_steps(integers, 4)
    assert binary.shape == (12, 2, 8, 5, 5)
    assert binary.unique().tolist() == [0, 1]
    assert torch.equal(sum_steps(binary, 4), integers)
    with pytest.raises(ValueError, match="levels is 1"):
        ILIF(levels=1)


class IntegerNet(nn.Module):
    """I-LIF, convolution, norm, twice: what stands behind a neuron is linear and has no bias."""

    def __init__(self) -> None:
        super().__init__()
        self.neurons = nn.ModuleList(ILIF(levels=3, spike_driven=True) for _ in range(2))
        self.convs = nn.ModuleList(nn.Conv2d(6, 6, 3, padding=1, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(6) for _ in range(2))
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for neuron, conv, norm in zip(self.neurons, self.convs, self.norms, strict=True):
            spikes = neuron(x)
            self.seen.append(spikes)
            currents = conv(spikes.flatten(0, 1)).unflatten(0, spikes.shape[:2])
            if len(spikes) != len(x):
                currents = sum_steps(currents, neuron.spike_levels)
            x = norm(currents.flatten(0, 1)).unflatten(0, x.shape[:2])
        return x


def test_a_network_of_integers_equals_itself_driven_by_binary_spikes():
    torch.manual_seed(0)
    net = IntegerNet().double()
    x = 2 * torch.randn(2, 3, 6, 7, 7, dtype=torch.float64)
    net(x)
    assert max(seen.max() for seen in net.seen) == 3
    for norm in net.norms:  # training normalises with the batch: compare with one set of figures
        norm.eval()
    expected = net(x)
    net.eval()
    net.seen.clear()
    actual = net(x)
    assert all(seen.max() == 1 and len(seen) == 6 for seen in net.seen)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def test_psn_is_a_matrix_over_time():
    neuron = PSN(time_steps=3)
    with torch.no_grad():
        neuron.weight.copy_(torch.tensor([[1.0, 0, 0], [0.5, 1, 0], [0, 0, 2]]))
    # h = x0, x0 / 2 + x1, 2 x2, each against a threshold of 1
    assert of(neuron, 0.9, 0.6, 0.5) == [0, 1, 1]
    x = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    neuron(x).sum().backward()
    assert neuron.weight.grad is not None
    assert neuron.bias.grad is not None
    with pytest.raises(ValueError, match="2 time steps for a PSN with time_steps=3"):
        neuron(x[:2])


@pytest.mark.parametrize("name", NEURONS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_the_membrane_is_float32(name: str, dtype: torch.dtype):
    torch.manual_seed(0)
    neuron = neuron_factory(name, 4)()
    x = (1.2 * torch.randn(4, 3, 500) + 0.5).to(dtype)
    with torch.autocast("cpu", dtype=dtype):
        spikes = neuron(x)
    assert spikes.dtype == dtype
    assert torch.equal(spikes.float(), neuron(x.float()))


@pytest.mark.parametrize("name", NEURONS)
def test_every_neuron_keeps_its_range_and_any_layout(name: str):
    torch.manual_seed(0)
    neuron = neuron_factory(name, 4)()
    x = 2 * torch.randn(4, 2, 6, 5, 3).transpose(2, 4)
    spikes = neuron(x)
    assert spikes.shape == x.shape
    assert set(spikes.unique().tolist()) <= set(range(neuron.spike_levels + 1))
    assert torch.equal(spikes, neuron(x.contiguous()))
    assert neuron(x[:, :0]).shape == (4, 0, 3, 5, 6)


def test_the_factory_builds_by_name_or_callable():
    assert neuron_factory("lif")(threshold=0.5).threshold == 0.5
    assert len(neuron_factory("psn", 3)(threshold=0.5).weight) == 3
    assert neuron_factory(IF)().dynamics.tau is None
    with pytest.raises(UnknownNameError, match="unknown neuron 'ilfi'; did you mean 'ilif'"):
        neuron_factory("ilfi")

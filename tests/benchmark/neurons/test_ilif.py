from __future__ import annotations

import pytest
import torch
from torch import nn

from spikebench.neurons import ILIF, binary_steps, sum_steps


def test_a_sequence_computed_by_hand():
    currents = torch.tensor([[2.6], [0.7], [9.0]])
    # a quarter stays: h = 2.6, (2.6 - 3) / 4 + 0.7, (0.6 - 1) / 4 + 9
    assert ILIF()(currents).flatten().tolist() == [3, 1, 4]


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

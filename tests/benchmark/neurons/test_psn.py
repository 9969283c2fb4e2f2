from __future__ import annotations

import pytest
import torch

from spikebench.neurons import PSN, neuron_factory
from spikebench.registry import NEURONS


def test_psn_is_a_matrix_over_time():
    neuron = PSN(time_steps=3)
    with torch.no_grad():
        neuron.weight.copy_(torch.tensor([[1.0, 0, 0], [0.5, 1, 0], [0, 0, 2]]))
    # h = x0, x0 / 2 + x1, 2 x2, each against a threshold of 1
    assert neuron(torch.tensor([[0.9], [0.6], [0.5]])).flatten().tolist() == [0, 1, 1]
    x = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    neuron(x).sum().backward()
    assert neuron.weight.grad is not None
    assert neuron.bias.grad is not None
    with pytest.raises(ValueError, match="time_steps=3"):
        neuron(x[:2])


def test_it_is_built_for_the_time_steps_of_a_backbone():
    for neuron in ("psn", PSN):
        built = neuron_factory(neuron, 3)(threshold=0.5, learn_threshold=False)
        assert built.weight.shape == (3, 3)
        assert built.bias.unique().tolist() == [-0.5]


def test_it_alone_is_not_causal():
    assert [name for name in NEURONS.names() if not NEURONS.get(name).causal] == ["psn"]

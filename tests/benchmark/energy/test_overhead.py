import pytest
import torch
from torch import nn

from spikebench import build_classifier
from spikebench.energy.overhead import Overhead, measure_overhead


def test_ratios_are_of_rounds():
    overhead = Overhead(plain=(1.0, 2.0, 4.0), counted=(3.0, 3.0, 4.0))
    assert overhead.ratios == [3.0, 1.5, 1.0]
    assert overhead.ratio == 1.5


def test_rounds_of_the_same_batch():
    seen = []

    class Watch(nn.Module):
        def forward(self, x):
            assert not torch.is_grad_enabled()
            assert not self.training
            seen.append(x)
            return x

    batch = torch.ones(2, 3)
    overhead = measure_overhead(Watch(), batch, rounds=3)
    assert len(overhead.plain) == len(overhead.counted) == 3
    assert len(seen) == 2 * (1 + 3)
    assert all(x is batch for x in seen)


@pytest.mark.slow
def test_a_count_takes_at_most_1_6_times_a_plain_pass():
    model = build_classifier("meta_spikeformer_15m", num_classes=1000, time_steps=4)
    assert measure_overhead(model, torch.randn(4, 3, 224, 224)).ratio <= 1.6

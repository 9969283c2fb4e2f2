"""Rates by time step, and the spread over images."""

import statistics

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmark.energy.counter import profile_operations
from benchmark.neurons import LIF, PSN
from tests.benchmark.energy.models import Call, spikes


class Fire(nn.Module):
    """A neuron (T, B, ...) that fires what it reads."""

    v_threshold = 1.0
    time_steps = 1

    def forward(self, x):
        return x


STEPS, IMAGES = 3, 4


def trains(*shape):
    """Spikes (T, B, ...) whose rate differs from step to step and from image to image."""
    rates = torch.linspace(0.1, 0.9, STEPS * IMAGES).view(STEPS, IMAGES, *[1] * len(shape))
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(STEPS, IMAGES, *shape, generator=generator) < rates).float()


def over_time(self, images):
    """Images (B, T, ...) through a convolution, a linear layer and a product of spikes."""
    x = self.fire(images.transpose(0, 1).contiguous())
    maps = self.conv(x.flatten(0, 1))
    tokens = x.flatten(3).flatten(2)
    self.fc(tokens)
    product = x.flatten(3) @ x.flatten(3).transpose(-1, -2)
    return maps, product, x * x.roll(1, -1)


def model():
    return Call(over_time, fire=Fire(), conv=nn.Conv2d(2, 3, 3, padding=1), fc=nn.Linear(32, 5))


def exact_conv(x):
    return F.conv2d(x, torch.ones(1, 2, 3, 3), padding=1).sum() * 3


@pytest.fixture(scope="module")
def report():
    return profile_operations(model(), [trains(2, 4, 4).transpose(0, 1)], time_steps=STEPS)


def test_rates_by_time_step(report):
    expected = trains(2, 4, 4).flatten(1).mean(1).tolist()
    assert len(report.rows) == 4
    for row in report.rows:
        assert row.rates == pytest.approx(expected), row.name
    assert report.neurons[0].rates == pytest.approx(expected)


def test_spread_of_rates_over_images(report):
    by_image = trains(2, 4, 4).transpose(0, 1).flatten(1).mean(1).tolist()
    for row in [*report.rows, *report.neurons]:
        assert row.rate_std == pytest.approx(statistics.stdev(by_image)), row.name


def test_spread_of_exact_operations_over_images(report):
    x = trains(2, 4, 4)
    conv = [float(exact_conv(x[:, image])) for image in range(IMAGES)]
    linear = [float(x[:, image].sum() * 5) for image in range(IMAGES)]
    flat = x.flatten(3)
    product = (flat.sum(2).unsqueeze(2) * flat.sum(2).unsqueeze(2)).sum((0, 2, 3)).tolist()
    mask = (x * x.roll(1, -1)).sum((0, 2, 3, 4)).tolist()
    per_image = [conv, linear, product, mask]
    for row, values in zip(report.rows, per_image, strict=True):
        assert row.exact_synaptic_operations == statistics.fmean(values), row.name
        assert row.exact_std == pytest.approx(statistics.stdev(values)), row.name
    totals = [sum(values) for values in zip(*per_image, strict=True)]
    assert report.synaptic_operations_std == pytest.approx(statistics.stdev(totals))


def test_batching_makes_no_difference(report):
    images = trains(2, 4, 4).transpose(0, 1)
    for size in (1, 3):
        again = profile_operations(model(), images.split(size), time_steps=STEPS)
        assert again == report


def test_one_image_has_no_spread():
    report = profile_operations(model(), [trains(2, 4, 4).transpose(0, 1)[:1]], time_steps=STEPS)
    assert report.synaptic_operations_std is None
    assert {row.exact_std for row in report.rows} == {None}


def test_a_layer_called_once_a_time_step():
    x = trains(2, 4, 4)

    def forward(self, images):
        return [self.conv(self.fire(step)) for step in images.transpose(0, 1)]

    stepwise = Call(forward, fire=Fire(), conv=nn.Conv2d(2, 3, 3, padding=1))
    report = profile_operations(stepwise, [x.transpose(0, 1)], time_steps=STEPS)
    (row,) = report.rows
    expected = x.flatten(1).mean(1).tolist()
    assert row.rates == pytest.approx(expected)
    assert report.neurons[0].rates == pytest.approx(expected)
    conv = [float(exact_conv(x[:, image])) for image in range(IMAGES)]
    assert row.exact_std == pytest.approx(statistics.stdev(conv))


def test_what_cannot_be_told_apart_is_not_guessed():
    """Regions of interest: so many that their number fits the samples by chance."""

    def forward(self, images):
        return self.fc(torch.ones(STEPS * IMAGES * 2, 4))

    report = profile_operations(
        Call(forward, fc=nn.Linear(4, 2)), [torch.ones(IMAGES, 1)], time_steps=STEPS
    )
    (row,) = report.rows
    assert row.rates == []
    assert (row.rate_std, row.exact_std, report.synaptic_operations_std) == (None, None, None)


def test_transposed_samples_are_no_samples():
    def forward(self, images):
        x = self.fire(images.transpose(0, 1).contiguous())
        return self.conv(x.transpose(0, 1).flatten(1, 2))  # (B, T * C, H, W)

    conv = nn.Conv2d(2 * STEPS, 1, 1)
    report = profile_operations(
        Call(forward, fire=Fire(), conv=conv), [trains(2, 4, 4).transpose(0, 1)], time_steps=STEPS
    )
    assert report.rows[0].rates == []
    assert report.rows[0].rate_std == pytest.approx(report.neurons[0].rate_std)


def test_neuron_updates_and_state():
    model = nn.Sequential(LIF(), PSN(4))
    report = profile_operations(model, [spikes(4, 2, 3, 5)], forward=lambda m, x: m(x))
    report = profile_operations(model, [torch.ones(4, 2, 3, 5)], time_steps=4)
    lif, psn = report.neurons
    assert (lif.kind, psn.kind) == ("LIF", "PSN")
    assert report.images == 4  # a tensor's first axis: here the time steps stand for images
    assert lif.updates * report.images == 4 * 2 * 3 * 5
    assert lif.neurons * report.images * 4 == 4 * 2 * 3 * 5
    assert (lif.additions, lif.multiplications) == (2, 1)
    assert lif.state_bytes == 4 * lif.neurons
    assert (psn.additions, psn.multiplications, psn.state_bytes) == (4, 4, 0)


def test_integer_spikes_count_as_many():
    from benchmark.neurons import ILIF

    model = nn.Sequential(ILIF(levels=4))
    x = 4 * torch.rand(1, 2, 50, generator=torch.Generator().manual_seed(0))
    report = profile_operations(model, [x], time_steps=1)
    fired = ILIF(levels=4)(x)
    assert report.neurons[0].spikes == fired.sum()
    assert report.neurons[0].rate == pytest.approx((fired > 0).float().mean().item())


def test_neurons_run_unseen_and_the_model_is_left_alone():
    model = nn.Sequential(LIF(), nn.Linear(3, 2))
    profile_operations(model, [spikes(2, 2, 3)])
    assert "forward" not in vars(model[0])

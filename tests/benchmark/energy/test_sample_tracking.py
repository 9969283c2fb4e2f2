"""Rates by time step, and the spread over images."""

import statistics

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spikebench.energy.profile import profile_operations
from spikebench.neurons import LIF, PSN
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
    for size in (1, 2):
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


@pytest.mark.parametrize("regions", [STEPS * IMAGES, 2 * STEPS * IMAGES, IMAGES, STEPS])
def test_what_cannot_be_told_apart_is_not_guessed(regions):
    """Regions of interest: so many that their number fits the samples by chance."""

    def forward(self, images):
        return self.fc(torch.ones(regions, 4)) + self.conv(torch.ones(regions, 1, 2, 2)).sum()

    model = Call(forward, fc=nn.Linear(4, 2), conv=nn.Conv2d(1, 1, 1))
    report = profile_operations(model, [torch.ones(IMAGES, 1)], time_steps=STEPS)
    assert report.synaptic_operations_std is None
    for row in report.rows:
        assert row.rates == []
        assert (row.rate_std, row.exact_std) == (None, None)


def test_as_many_images_as_time_steps_with_a_neuron_that_runs_once_a_step():
    """(B, ...) then looks like (T, ...); that it runs T times says which it is."""
    x = trains(2, 4, 4)[:, :STEPS]

    def forward(self, images):
        return [self.fc(self.fire(step).flatten(1)) for step in images.transpose(0, 1)]

    expected = x.flatten(1).mean(1).tolist()
    for mode in ("s", None):
        fire = Fire()
        if mode:
            fire.step_mode = mode
        model = Call(forward, fire=fire, fc=nn.Linear(32, 5))
        report = profile_operations(model, [x.transpose(0, 1)], time_steps=STEPS)
        assert report.rows[0].rates == pytest.approx(expected)


def test_a_layer_that_is_deep_is_not_called_once_a_step():
    """After the mean over time, a shared layer that runs T times runs at no time step."""

    def forward(self, images):
        x = self.fire(images.transpose(0, 1).contiguous()).mean(0).flatten(1)
        for _ in range(STEPS):
            x = self.fc(x)
        return x

    model = Call(forward, fire=Fire(), fc=nn.Linear(32, 32))
    report = profile_operations(model, [trains(2, 4, 4).transpose(0, 1)], time_steps=STEPS)
    assert report.rows[0].rates == []
    assert report.rows[0].rate_std is not None


def test_frames_of_images_are_known_by_image_alone():
    frames = trains(2, 4, 4).transpose(0, 1).contiguous()
    model = Call(lambda self, x: self.conv(x.flatten(0, 1)), conv=nn.Conv2d(2, 3, 1))
    (row,) = profile_operations(model, [frames], time_steps=STEPS).rows
    assert row.rates == []
    by_image = (3 * frames.flatten(1).sum(1)).tolist()
    assert row.exact_std == pytest.approx(statistics.stdev(by_image))


def test_tokens_keep_their_images():
    """A linear layer sees (B * N, C); heads may come before the images."""
    tokens = torch.zeros(IMAGES, 6, 8)
    tokens[0] = 1

    def forward(self, x):
        h = self.fc(x)
        heads = x.unflatten(-1, (2, 4)).permute(2, 0, 1, 3).flatten(0, 1)  # (heads * B, N, C)
        return h, heads @ heads.transpose(-1, -2)

    linear, product = profile_operations(
        Call(forward, fc=nn.Linear(8, 3)), [tokens], time_steps=1
    ).rows
    assert linear.exact_std == pytest.approx(statistics.stdev([6 * 8 * 3, 0, 0, 0]))
    assert product.exact_std is None


def test_one_time_step_of_many_is_no_batch():
    """A slice of spikes (T, B, N, C) has as many rows as would fit the whole."""

    def forward(self, images):
        x = self.fire(images.transpose(0, 1).contiguous())
        return self.fc(x[1].flatten(1))

    model = Call(forward, fire=Fire(), fc=nn.Linear(32, 5))
    (row,) = profile_operations(model, [trains(2, 4, 4).transpose(0, 1)], time_steps=STEPS).rows
    assert row.rates == []


def test_a_row_that_first_runs_later_did_nothing_before():
    def forward(self, x):
        return self.fc(x) if x.sum() else x

    batches = [torch.zeros(2, 4), torch.ones(2, 4)]
    (row,) = profile_operations(Call(forward, fc=nn.Linear(4, 4)), batches, time_steps=1).rows
    assert row.exact_synaptic_operations == 8
    assert row.exact_std == pytest.approx(statistics.stdev([0, 0, 16, 16]))


def test_the_spread_of_integers_does_not_depend_on_their_order():
    class Passing(nn.Module):
        v_threshold = 1.0

        def forward(self, x):
            return x

    batches = [
        torch.tensor([[2.0, 2, 0, 0], [2, 0, 0, 0]]),
        torch.tensor([[1.0, 3, 0, 0], [1, 1, 1, 0]]),
    ]
    model = nn.Sequential(Passing(), nn.Linear(4, 1))
    orders = [batches, batches[::-1], [torch.cat(batches)]]
    spreads = {profile_operations(model, order, time_steps=1).rows[0].exact_std for order in orders}
    assert len(spreads) == 1
    assert spreads.pop() == pytest.approx(statistics.stdev([4, 2, 4, 3]))


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
    from spikebench.neurons import ILIF

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


def test_images_that_come_one_by_one():
    """As detectors take them: a list, normalised and padded one by one, then stacked."""
    images = [torch.zeros(3, 4, 4), torch.ones(3, 2, 4), torch.ones(3, 4, 2)]

    def forward(self, inputs):
        padded = [F.pad(x[[2, 1, 0]] / 2, (0, 4 - x.shape[2], 0, 4 - x.shape[1])) for x in inputs]
        return self.conv(torch.stack(padded))

    model = Call(forward, conv=nn.Conv2d(3, 2, 1))
    for batch, run, find in (
        (images, lambda m, x: m(x), lambda x: x),
        ({"inputs": images}, lambda m, x: m(x["inputs"]), lambda x: x["inputs"]),
    ):
        (row,) = profile_operations(model, [batch], forward=run, images=find, time_steps=1).rows
        assert row.exact_std == pytest.approx(statistics.stdev([0, 3 * 8 * 2, 3 * 8 * 2]))

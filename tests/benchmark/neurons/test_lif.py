from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from spikebench.neurons import IF, ILIF, LIF, PLIF, Neuron


def lif(x: Tensor, tau: float = 2.0, threshold: float = 1.0, alpha: float = 4.0) -> Tensor:
    return LIF(tau, threshold, alpha=alpha)(x)


def loop_lif(x: Tensor, tau: float, threshold: float, alpha: float, detach: bool = True) -> Tensor:
    """Spikes and charges by autograd alone: the surrogate added, its value taken away."""
    membrane = torch.zeros_like(x[0])
    spikes = []
    for current in x:
        charge = membrane * (1 - 1 / tau) + current / tau
        smooth = torch.sigmoid(alpha * (charge - threshold))
        spike = (charge >= threshold).to(x.dtype) + (smooth - smooth.detach())
        membrane = (
            torch.where(spike.detach() > 0.5, 0.0, charge) if detach else charge * (1 - spike)
        )
        spikes.append(spike)
    return torch.stack(spikes)


# by hand, tau = 2, threshold = 1: h = (v + x) / 2
@pytest.mark.parametrize(
    ("currents", "spikes"),
    [
        ([2.0], [1]),
        ([1.9375], [0]),
        ([1.0, 1.5], [0, 1]),  # h = 0.5, 1
        ([4.0, 1.9375], [1, 0]),  # h = 2, then 0.96875 from 0: the reset is hard
        ([1.5, 1.0, 1.125], [0, 0, 1]),  # h = 0.75, 0.875, 1
        ([3.0, 1.5, 1.25], [1, 0, 1]),  # h = 1.5, 0.75, 1
        ([-2.0, 2.0, 2.0, 1.0], [0, 0, 1, 0]),  # h = -1, 0.5, 1.25, 0.5
        ([1.0, 1.0, 1.0, 1.0], [0, 0, 0, 0]),  # h -> 1, never there
    ],
)
def test_sequences_computed_by_hand(currents: list[float], spikes: list[int]):
    assert lif(torch.tensor(currents)).tolist() == spikes


def test_other_time_constants_and_thresholds():
    # tau = 4, threshold = 0.5: h = 0.25, 0.4375, 0.578125, then 0.25 after the reset
    assert lif(torch.ones(4), tau=4.0, threshold=0.5).tolist() == [0, 0, 1, 0]
    # tau = 1 keeps nothing of the past
    assert lif(torch.tensor([0.9, 0.9, 1.0]), tau=1.0).tolist() == [0, 0, 1]


@pytest.mark.parametrize("threshold", [1.0, 0.5])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_a_membrane_equal_to_the_threshold_fires(threshold: float, dtype: torch.dtype):
    at = torch.tensor([2 * threshold], dtype=dtype)
    below = torch.nextafter(at, torch.zeros_like(at))
    assert lif(at[None], threshold=threshold).item() == 1
    assert lif(below[None], threshold=threshold).item() == 0


@pytest.mark.parametrize("time_steps", [1, 2, 3, 4, 7])
@pytest.mark.parametrize(("tau", "threshold", "alpha"), [(2.0, 1.0, 4.0), (3.0, 0.5, 2.0)])
def test_spikes_and_gradient_equal_an_independent_loop(time_steps, tau, threshold, alpha):
    generator = torch.Generator().manual_seed(time_steps)
    x = 2 * torch.randn(time_steps, 200, dtype=torch.float64, generator=generator)
    weight = torch.randn(x.shape, dtype=torch.float64, generator=generator)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    spikes = lif(ours, tau, threshold, alpha)
    expected = loop_lif(theirs, tau, threshold, alpha)
    assert 0 < spikes.mean() < 1
    assert torch.equal(spikes, expected)
    (spikes * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-14)


def test_the_reset_is_detached_by_hand():
    x = torch.tensor([3.0, 1.0], dtype=torch.float64, requires_grad=True)
    lif(x)[1].backward()  # fires at t = 0, so nothing of x[0] is left in h[1] = 0.5

    def slope(distance: float) -> float:
        value = 1 / (1 + math.exp(-4 * distance))
        return 4 * value * (1 - value)

    assert x.grad is not None
    assert x.grad[0] == 0  # a reset in the graph would add -h[0] * slope(0.5) / 4
    assert x.grad[1].item() == pytest.approx(slope(-0.5) / 2, rel=1e-12)

    attached = x.detach().clone().requires_grad_()
    loop_lif(attached, 2.0, 1.0, 4.0, detach=False)[1].backward()
    assert attached.grad is not None
    assert attached.grad[0] != 0


def test_gradient_flows_back_through_a_silent_membrane():
    x = torch.tensor([1.0, 1.5], dtype=torch.float64, requires_grad=True)
    lif(x)[1].backward()  # h[1] = 1 exactly: the slope is alpha / 4 = 1
    assert x.grad is not None
    assert x.grad.tolist() == pytest.approx([0.25, 0.5], rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_half_precision_the_membrane_is_float32(dtype: torch.dtype):
    generator = torch.Generator().manual_seed(0)
    x = (1.2 * torch.randn(4, 20_000, generator=generator) + 0.5).to(dtype).requires_grad_()
    spikes = lif(x)
    assert spikes.dtype == dtype
    single = x.detach().float().requires_grad_()
    expected = lif(single)
    assert torch.equal(spikes.float(), expected)
    in_half = loop_lif(x.detach(), 2.0, 1.0, 4.0)
    assert not torch.equal(spikes, in_half)  # so that float32 is seen to matter
    spikes.sum().backward()
    expected.sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == dtype
    assert torch.equal(x.grad, single.grad.to(dtype))


def test_input_that_is_not_contiguous():
    generator = torch.Generator().manual_seed(0)
    x = 2 * torch.randn(5, 3, 4, 6, generator=generator).permute(1, 3, 0, 2)
    expanded = x[:1].expand(4, -1, -1, -1)
    for view in (x, expanded, x[..., ::2]):
        assert not view.is_contiguous()
        assert torch.equal(lif(view), lif(view.contiguous()))


@pytest.mark.parametrize("shape", [(4, 0, 8), (1, 0), (2, 3, 0, 5)])
def test_an_empty_batch_stays_empty(shape: tuple[int, ...]):
    x = torch.zeros(shape, requires_grad=True)
    spikes = LIF()(x)
    assert spikes.shape == shape
    spikes.sum().backward()
    assert x.grad is not None


def test_the_layer_keeps_no_state_and_has_no_parameters():
    layer = LIF()
    assert isinstance(layer, Neuron)
    assert layer.state_dict() == {}
    assert list(layer.parameters()) == []
    x = torch.full((2, 3), 1.4)  # silent at t = 0, fires at t = 1: 0.7, 1.05
    first = layer(x)
    assert first.tolist() == [[0, 0, 0], [1, 1, 1]]
    before = dict(vars(layer))
    assert torch.equal(layer(x), first)
    assert layer(x[:, :1]).shape == (2, 1)
    assert vars(layer) == before


def test_the_layer_passes_its_settings_on():
    x = torch.linspace(-1, 4, 60).reshape(3, 20).requires_grad_()
    layer = LIF(tau=3.0, threshold=0.5, alpha=2.0)
    assert torch.equal(layer(x), lif(x, 3.0, 0.5, 2.0))
    (grad,) = torch.autograd.grad(layer(x).sum(), x)
    (expected,) = torch.autograd.grad(lif(x, 3.0, 0.5, 2.0).sum(), x)
    assert torch.equal(grad, expected)
    assert repr(layer) == "LIF(tau=3.0, threshold=0.5, alpha=2.0)"


def test_elements_are_independent():
    generator = torch.Generator().manual_seed(3)
    x = 2 * torch.randn(4, 5, 7, generator=generator)
    together = lif(x)
    for index in range(5):
        assert torch.equal(lif(x[:, index]), together[:, index])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tau": 0.5}, "tau is 0.5"),
        ({"threshold": 0.0}, "threshold is 0.0"),
        ({"v_reset": 1.0}, "v_reset is 1.0"),
        ({"alpha": -1.0}, "alpha is -1.0"),
        ({"surrogate": "sigmod"}, "sigmod"),
    ],
)
def test_settings_without_meaning_are_refused(settings: dict, message: str):
    with pytest.raises((ValueError, LookupError), match=message):
        LIF(**settings)


def of(neuron: Neuron, *currents: float) -> list[float]:
    return neuron(torch.tensor(currents)[:, None]).flatten().tolist()


def test_other_settings_computed_by_hand():
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


def test_a_parametric_lif_starts_as_its_lif_and_learns():
    x = 2 * torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    neuron = PLIF(init_tau=2.0)
    assert torch.equal(neuron(x), LIF(tau=2.0)(x))
    neuron(x).sum().backward()
    assert neuron.w.grad is not None
    assert neuron.w.grad.abs() > 0
    assert set(neuron.state_dict()) == {"w"}
    with pytest.raises(ValueError, match="init_tau is 1.0"):
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

from __future__ import annotations

import pytest
import torch

from spikebench.neurons.surrogate import DEFAULT_ALPHA, SURROGATES, count, spike


@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("alpha", [1.0, 2.5])
def test_a_surrogate_has_the_integral_one(name: str, alpha: float):
    u = torch.linspace(-2000, 2000, 4_000_001, dtype=torch.float64)
    assert torch.trapezoid(SURROGATES[name](u, alpha), u).item() == pytest.approx(1, abs=3e-3)


@pytest.mark.parametrize(
    ("name", "alpha", "peak"),
    [("sigmoid", 4, 1), ("arctan", 2, 1), ("rectangular", 1, 1), ("triangular", 1, 1)],
)
def test_default_slopes_are_one_at_the_threshold(name: str, alpha: float, peak: float):
    assert DEFAULT_ALPHA[name] == alpha
    assert SURROGATES[name](torch.zeros(1), alpha).item() == peak


@pytest.mark.parametrize("name", SURROGATES)
def test_a_spike_is_a_step_with_the_slope_of_its_surrogate(name: str):
    u = torch.tensor([-1.0, -0.25, 0.0, 0.3, 30.0], dtype=torch.float64, requires_grad=True)
    spikes = spike(u, name, 1.5)
    assert spikes.tolist() == [0, 0, 1, 1, 1]
    (grad,) = torch.autograd.grad(spikes.sum(), u)
    assert torch.equal(grad, SURROGATES[name](u.detach(), 1.5))
    with torch.no_grad():
        assert torch.equal(spike(u, name, 1.5), spikes)


@pytest.mark.parametrize(
    ("name", "primitive"),
    [
        ("sigmoid", lambda u: torch.sigmoid(3 * u)),
        ("arctan", lambda u: torch.arctan(torch.pi / 2 * 3 * u) / torch.pi),
        ("rectangular", lambda u: (3 * u).clamp(-0.5, 0.5)),
        ("triangular", lambda u: torch.where(u.abs() < 1 / 3, 3 * u - u.sign() * 4.5 * u**2, 0)),
    ],
)
def test_slopes_are_derivatives_of_the_functions_they_are_named_for(name: str, primitive):
    u = torch.linspace(-1, 1, 41, dtype=torch.float64).add(0.0123).requires_grad_()
    (slope,) = torch.autograd.grad(primitive(u).sum(), u)
    torch.testing.assert_close(SURROGATES[name](u.detach(), 3.0), slope)


def test_a_count_rounds_and_passes_gradients_inside_its_range():
    u = torch.tensor([-0.6, 0.4, 0.5, 1.5, 2.5, 3.4, 9.0], requires_grad=True)
    counts = count(u, 4)
    assert counts.tolist() == [0, 0, 0, 2, 2, 3, 4]
    (grad,) = torch.autograd.grad(counts.sum(), u)
    assert grad.tolist() == [0, 1, 1, 1, 1, 1, 0]

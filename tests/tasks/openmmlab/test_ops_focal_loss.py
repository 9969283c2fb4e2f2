"""The focal loss of the stand-in for mmcv's compiled ops, as mmcv's own function calls it."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from _spikebench_mmcv import OpsFinder, install

install()

from mmcv.ops import sigmoid_focal_loss  # noqa: E402
from mmcv.ops.focal_loss import SigmoidFocalLossFunction  # noqa: E402
from mmdet.models.losses.focal_loss import FocalLoss, py_sigmoid_focal_loss  # noqa: E402

pytestmark = pytest.mark.skipif(
    not isinstance(importlib.import_module("mmcv._ext").__spec__.loader, OpsFinder),
    reason="a compiled mmcv is installed",
)

SAMPLES, CLASSES = 12, 4


def logits(dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 4 * torch.randn(SAMPLES, CLASSES, generator=generator, dtype=dtype)


def targets(background: bool = True) -> Tensor:
    """Every class, and the background, MMDetection's class after the last."""
    return torch.arange(SAMPLES) % (CLASSES + background)


def one_hot(target: Tensor) -> Tensor:
    return F.one_hot(target, CLASSES + 1)[:, :CLASSES]


@pytest.mark.parametrize(
    ("logit", "target", "expected"),
    [
        # p = 1/2: alpha 0.25, gamma 2
        (0.0, 0, -0.25 * 0.5**2 * math.log(0.5)),
        (0.0, 1, -0.75 * 0.5**2 * math.log(0.5)),
        # p = 3/4
        (math.log(3), 0, -0.25 * 0.25**2 * math.log(0.75)),
        (math.log(3), 1, -0.75 * 0.75**2 * math.log(0.25)),
    ],
)
def test_one_logit_by_hand(logit: float, target: int, expected: float):
    loss = sigmoid_focal_loss(
        torch.tensor([[logit]]), torch.tensor([target]), 2.0, 0.25, None, "none"
    )
    assert loss.shape == (1, 1)
    assert loss.item() == pytest.approx(expected)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (1.5, 0.6), (0.0, 0.5)])
def test_loss_and_gradient_equal_those_of_mmdetection(reduction: str, gamma: float, alpha: float):
    x, reference = logits().requires_grad_(), logits().requires_grad_()
    loss = sigmoid_focal_loss(x, targets(), gamma, alpha, None, reduction)
    expected = py_sigmoid_focal_loss(
        reference, one_hot(targets()), gamma=gamma, alpha=alpha, reduction="none"
    )
    # mmcv's mean is that over samples
    expected = {
        "none": expected,
        "mean": expected.sum() / SAMPLES,
        "sum": expected.sum(),
    }[reduction]
    torch.testing.assert_close(loss, expected)

    grad = torch.randn(loss.shape, generator=torch.Generator().manual_seed(1))
    loss.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(x.grad, reference.grad)


@pytest.mark.parametrize("gamma", [2.0, 1.0, 0.5])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradcheck(gamma: float, weighted: bool):
    x = logits(torch.float64).requires_grad_()
    weight = torch.rand(CLASSES, dtype=torch.float64) if weighted else None
    assert torch.autograd.gradcheck(
        lambda x: SigmoidFocalLossFunction.apply(
            x, targets(background=not weighted), gamma, 0.3, weight, "none"
        ),
        x,
    )


def test_a_weight_is_that_of_the_samples_class():
    x, target = logits(), targets(background=False)
    weight = torch.tensor([1.0, 2.0, 0.0, 0.5])
    weighted = sigmoid_focal_loss(x, target, 2.0, 0.25, weight, "none")
    plain = sigmoid_focal_loss(x, target, 2.0, 0.25, None, "none")
    torch.testing.assert_close(weighted, plain * weight.repeat(SAMPLES // CLASSES)[:, None])


@pytest.mark.parametrize("target", [CLASSES, CLASSES + 3, -1])
def test_a_target_that_is_no_class_is_background(target: int):
    x = logits()
    loss = sigmoid_focal_loss(x, torch.full((SAMPLES,), target), 2.0, 0.25, None, "none")
    p = x.double().sigmoid()
    torch.testing.assert_close(loss.double(), -0.75 * p**2 * (1 - p).log(), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("logit", [-200.0, -40.0, 40.0, 200.0])
@pytest.mark.parametrize("target", [0, 1])
def test_what_is_certain_has_a_finite_loss_and_gradient(logit: float, target: int):
    x = torch.tensor([[logit]], requires_grad=True)
    loss = sigmoid_focal_loss(x, torch.tensor([target]), 2.0, 0.25, None, "sum")
    loss.backward()
    right = (logit > 0) == (target == 0)
    alpha = 0.25 if target == 0 else 0.75
    sign = 1 if logit > 0 else -1
    assert loss.item() == pytest.approx(0.0 if right else alpha * abs(logit), abs=1e-9)
    assert x.grad.item() == pytest.approx(0.0 if right else alpha * sign, abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_float32_rounded_once(dtype: torch.dtype):
    x = logits().to(dtype).requires_grad_()
    reference = x.detach().float().requires_grad_()
    loss = sigmoid_focal_loss(x, targets(), 2.0, 0.25, None, "none")
    expected = sigmoid_focal_loss(reference, targets(), 2.0, 0.25, None, "none")
    assert loss.dtype == dtype
    torch.testing.assert_close(loss, expected.to(dtype), rtol=0, atol=0)
    loss.backward(torch.ones_like(loss))
    expected.backward(torch.ones_like(expected))
    torch.testing.assert_close(x.grad, reference.grad.to(dtype), rtol=0, atol=0)


def test_no_samples():
    x = torch.empty(0, CLASSES, requires_grad=True)
    loss = sigmoid_focal_loss(x, torch.empty(0, dtype=torch.long), 2.0, 0.25, None, "sum")
    loss.backward()
    assert loss.item() == 0
    assert x.grad.shape == (0, CLASSES)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_mmdetection_has_one_loss_on_all_devices():
    loss, target = FocalLoss(), targets()
    x, there = logits().requires_grad_(), logits().cuda().requires_grad_()
    expected, given = loss(x, target, avg_factor=3), loss(there, target.cuda(), avg_factor=3)
    torch.testing.assert_close(given.cpu(), expected)
    expected.backward()
    given.backward()
    torch.testing.assert_close(there.grad.cpu(), x.grad)

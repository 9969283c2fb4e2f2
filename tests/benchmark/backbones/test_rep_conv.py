from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spikebench.backbones.rep_conv import RepConv


@pytest.fixture
def rep_conv() -> RepConv:
    """A RepConv in float64 whose batch norms are anything but the identity."""
    torch.manual_seed(0)
    model = RepConv(6).double()
    with torch.no_grad():
        for norm in (model.norm1, model.norm2):
            norm.weight.uniform_(1, 3)
            norm.bias.uniform_(-0.5, 1)
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 1.5)
    return model


def spikes(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(*shape, generator=generator) < 0.3).double()


def dense(model: RepConv, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias of all but the last batch norm, whose first normalises by `mean`, `var`."""
    scale = model.norm1.weight / torch.sqrt(var + model.norm1.eps)
    shift = model.norm1.bias - mean * scale
    first, last = model.pw1.weight[:, :, 0, 0], model.pw2.weight[:, :, 0, 0]
    weight = torch.einsum("om,myx,m,mi->oiyx", last, model.dw.weight[:, 0], scale, first)
    return weight, last @ (model.dw.weight.sum((1, 2, 3)) * shift)


def test_rep_conv_is_one_dense_convolution_in_evaluation(rep_conv: RepConv):
    rep_conv.eval()
    norm = rep_conv.norm2
    x = spikes(5, 6, 5, 7)
    with torch.no_grad():
        weight, bias = dense(rep_conv, rep_conv.norm1.running_mean, rep_conv.norm1.running_var)
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        weight = weight * scale[:, None, None, None]
        bias = (bias - norm.running_mean) * scale + norm.bias
        expected = F.conv2d(x, weight, bias, padding=1)
        found = rep_conv(x)
    assert (found - expected).abs().max() < 1e-12


def test_rep_conv_pads_with_batch_statistics_in_training(rep_conv: RepConv):
    rep_conv.train()
    norm = rep_conv.norm2
    frames = spikes(5, 6, 5, 7)
    with torch.no_grad():
        lifted = F.conv2d(frames, rep_conv.pw1.weight)
        mean, var = lifted.mean((0, 2, 3)), lifted.var((0, 2, 3), correction=0)
        weight, bias = dense(rep_conv, mean, var)
        expected = F.conv2d(frames, weight, bias, padding=1)
        expected = F.batch_norm(expected, None, None, norm.weight, norm.bias, training=True)
        found = rep_conv(frames)
    assert (found - expected).abs().max() < 1e-12


class AnyNorm(nn.modules.batchnorm._BatchNorm):
    """A batch norm of another kind, such as a synchronised one: it is called as it is."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass


@pytest.mark.parametrize("momentum", [0.1, None])
def test_rep_conv_trains_as_its_parts_one_after_another(rep_conv: RepConv, momentum: float | None):
    rep_conv.norm1.momentum = momentum
    literal = copy.deepcopy(rep_conv)
    literal.norm1.__class__ = AnyNorm
    found = []
    for model in (rep_conv, literal):
        results = []
        for seed in (1, 2):
            frames = torch.randn(
                5, 6, 5, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
            ).requires_grad_()
            output = model(frames)
            results.append(output)
            wanted = [frames, *model.parameters()]
            results.extend(torch.autograd.grad(output.sin().sum(), wanted))
        found.append([*results, *model.buffers()])
    assert rep_conv.norm1.num_batches_tracked == 2
    torch.testing.assert_close(*found, rtol=1e-11, atol=1e-11)


def test_rep_conv_trains_in_half_precision(rep_conv: RepConv):
    frames = spikes(5, 6, 5, 7).float().requires_grad_()
    grads = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            output = rep_conv.float()(frames)
        assert output.dtype == (torch.bfloat16 if enabled else torch.float32)
        grads.append(torch.autograd.grad(output.float().sin().sum(), frames)[0])
    assert (grads[0] - grads[1]).norm() < 0.1 * grads[0].norm()

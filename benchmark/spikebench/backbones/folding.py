"""Exact algebra on linear layers in evaluation: fewer layers, the same function.

A batch norm in evaluation is an affine map of each channel, so it folds into the convolution before
it; a depthwise and a pointwise convolution in a row are one dense convolution. All is computed in
float64 and rounded once.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.nn.utils.parametrize import is_parametrized

from spikebench.errors import UserError

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class DeployError(UserError, RuntimeError):
    """A model cannot be deployed, or a deployed one was asked to train; the message says why."""


def is_plain(layer: nn.Module) -> bool:
    """Whether a convolution or batch norm is what its weights say, no more: PyTorch's own code."""
    own = {kind.forward for kind in (*CONVOLUTIONS, _BatchNorm, nn.SyncBatchNorm)}
    hooked = layer._forward_hooks or layer._forward_pre_hooks
    return type(layer).forward in own and not is_parametrized(layer) and not hooked


def is_foldable(norm: nn.Module) -> bool:
    """Whether a layer is a batch norm with running statistics."""
    return isinstance(norm, _BatchNorm) and norm.running_mean is not None


def folded(conv: nn.Module, norm: nn.Module) -> nn.Module:
    """Fold a batch norm into the convolution before it, or into the last one of a sequence.

    Raises:
        DeployError: a layer is not PyTorch's own, or has hooks.
    """
    if isinstance(conv, nn.Sequential):
        return conv[:-1].append(folded(conv[-1], norm))
    dtype = next(conv.parameters()).dtype
    return fuse_conv_bn_eval(exact(conv), exact(norm)).to(dtype)


def dense(*convs: nn.Module) -> nn.Conv2d:
    """One convolution for a depthwise and a pointwise one, or for a pointwise one and these two.

    Only the last one may have a bias.

    Raises:
        DeployError: a layer is not PyTorch's own, or has hooks.
    """
    *first, depthwise, last = (exact(conv) for conv in convs)
    weight = last.weight * depthwise.weight.transpose(0, 1)
    for pointwise in first:
        weight = torch.einsum("omyx,mi->oiyx", weight, pointwise.weight[:, :, 0, 0])
    fused = nn.utils.skip_init(
        nn.Conv2d, weight.shape[1], weight.shape[0], weight.shape[2:], padding=depthwise.padding
    )
    fused.weight, fused.bias = frozen(weight), last.bias
    return fused.to(next(convs[0].parameters()).dtype)


def exact(layer: nn.Module) -> Any:
    """Copy a plain layer in float64, in evaluation.

    Raises:
        DeployError: the layer is not PyTorch's own, or has hooks.
    """
    if not is_plain(layer):
        raise DeployError(
            f"a layer to fold is of type {type(layer).__name__}, or has hooks; expected a plain "
            "convolution and batch norm: deploy the model before changing its layers"
        )
    return copy.deepcopy(layer).double().eval()


def frozen(value: Tensor) -> nn.Parameter:
    """A parameter without a gradient."""
    return nn.Parameter(value, requires_grad=False)

"""The deploy form of a trained model: the same function of its input, in fewer or fatter layers.

In evaluation a batch norm is an affine map of each channel, and folds into the convolution before
it. A RepConv is then three convolutions, pw, dw 3x3, pw, and linear as a whole: one dense 3x3. The
border that it pads with what its first norm gives to zero is a constant map throughout, so that
constant moves behind the depthwise convolution, where it is a bias, and zeros are left to pad with.
A SepConv ends with dw 7x7, pw: one dense 7x7.
"""

from __future__ import annotations

import copy
import logging
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from spikebench.backbones.blocks import Downsample, SepConv
from spikebench.backbones.layers import ConvNorm, RepConv, RepConvNorm
from spikebench.errors import UserError
from spikebench.forms import FORMS, known_form
from spikebench.inference.tracing import is_plain, provable_pairs

log = logging.getLogger("spikebench")


class DeployError(UserError, RuntimeError):
    """A model cannot be deployed, or a deployed one was asked to train; the message says why."""


def deploy(
    model: nn.Module,
    fold_norms: bool = True,
    fuse_rep_conv: bool = False,
    fuse_sep_conv: bool = False,
) -> nn.Module:
    """Copy a model into a form for inference: see `in_form` for the named ones.

    Folding and fusing are exact: only rounding differs, by about 1e-7 of a layer's scale in
    float32. The stem of Meta-SpikeFormer meets a still image once and not T times.

    Where rounding lifts a membrane over its threshold a spike flips, and with it what
    follows; whole models are therefore best compared in float64.

    Args:
        model: a backbone, a classifier or any other module, with its weights loaded: a deployed
            model has other ones. It is left as it is.
        fold_norms: fold batch norms into the convolutions before them: in `ConvNorm`, `RepConv` and
            `RepConvNorm`, and in other modules wherever tracing their code with `torch.fx` proves
            that a plain `nn.Conv1d`, `nn.Conv2d` or `nn.Conv3d` is called once and that only the
            norm reads what it gives. Norms behind linear layers stay (which axis they normalise
            depends on the input), as do norms without running statistics. What stays is logged,
            with the reason.
        fuse_rep_conv: make each `RepConv` one dense 3x3 convolution. Parameters grow: those of
            Meta-SpikeFormer 15M from 15.1 M to 33.2 M.
        fuse_sep_conv: make the last two convolutions of each `SepConv` one dense 7x7, which adds
            3.6 M parameters to the 15M model.

    Returns:
        The copy, in evaluation mode and without gradients. Its `train()` raises `DeployError`,
        for without its norms it would train as another model.

    Raises:
        DeployError: a convolution of ours was replaced by another kind, or has hooks.
    """
    deployed = copy.deepcopy(model).eval().requires_grad_(False)
    if fuse_rep_conv or fold_norms:
        deployed = _without_rep_conv(deployed, dense=fuse_rep_conv)
    if fuse_sep_conv:
        for module in deployed.modules():
            if isinstance(module, SepConv):
                module.pw2.conv = _dense(module.dw, module.pw2.conv)
                module.set_submodule("dw", nn.Identity())
    if fold_norms:
        for module in deployed.modules():
            if isinstance(module, ConvNorm | RepConvNorm) and _foldable(module.norm):
                module.set_submodule("conv", _folded(module.conv, module.norm))
                module.set_submodule("norm", nn.Identity())
        _fold_foreign(deployed)
    for module in deployed.modules():
        if isinstance(module, Downsample):
            module.repeat = False
    deployed.eval()
    vars(deployed)["train"] = partial(_train, deployed)
    return deployed


def in_form(model: nn.Module, form: str) -> nn.Module:
    """The model in one of the forms of `spikebench.forms`: itself as coded, else a deployed copy.

    Raises:
        UnknownNameError: there is no such form.
        DeployError: see `deploy`.
    """
    arguments = FORMS[known_form(form)].deploy
    return model if arguments is None else deploy(model, **arguments)


def _train(model: nn.Module, mode: bool = True) -> nn.Module:
    if mode:
        raise DeployError(
            f"this {type(model).__name__} is deployed, its norms folded: train the model that "
            "deploy() copied, and deploy it again"
        )
    return type(model).train(model, False)


def _foldable(norm: nn.Module) -> bool:
    return isinstance(norm, _BatchNorm) and norm.running_mean is not None


def _folded(conv: nn.Module, norm: nn.Module) -> nn.Module:
    """A convolution, or a sequence that ends with one, and the norm behind it."""
    if isinstance(conv, nn.Sequential):
        return conv[:-1].append(_folded(conv[-1], norm))
    dtype = next(conv.parameters()).dtype
    return fuse_conv_bn_eval(_exact(conv), _exact(norm)).to(dtype)


def _without_rep_conv(model: nn.Module, dense: bool) -> nn.Module:
    """Put three plain convolutions, or one, in the place of each RepConv."""
    fused: dict[nn.Module, nn.Module] = {}
    for module in model.modules():
        if isinstance(module, RepConv):
            convs = _separable(module)
            fused[module] = _dense(*convs) if dense else nn.Sequential(*convs)
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if child in fused:
                setattr(parent, name, fused[child])
    return fused.get(model, model)


def _separable(rep: RepConv) -> list[nn.Conv2d]:
    """pw, dw 3x3 padded with zeros, pw with bias: together what `rep` is in evaluation."""
    dtype = rep.dw.weight.dtype
    first = fuse_conv_bn_eval(_exact(rep.pw1), _exact(rep.norm1))
    middle = _exact(rep.dw)
    last = fuse_conv_bn_eval(_exact(rep.pw2), _exact(rep.norm2))
    constant = first.bias * middle.weight.sum((1, 2, 3))
    last.bias = _parameter(last.bias + last.weight[:, :, 0, 0] @ constant)
    first.bias = None
    middle.padding = (1, 1)
    return [conv.to(dtype) for conv in (first, middle, last)]


def _dense(*convs: nn.Conv2d) -> nn.Conv2d:
    """One convolution for dw, pw, or for pw, dw, pw, where only the last one has a bias."""
    *first, depthwise, last = (_exact(conv) for conv in convs)
    weight = last.weight * depthwise.weight.transpose(0, 1)
    for pointwise in first:
        weight = torch.einsum("omyx,mi->oiyx", weight, pointwise.weight[:, :, 0, 0])
    fused = nn.utils.skip_init(
        nn.Conv2d, weight.shape[1], weight.shape[0], weight.shape[2:], padding=depthwise.padding
    )
    fused.weight, fused.bias = _parameter(weight), last.bias
    return fused.to(convs[0].weight.dtype)


def _fold_foreign(model: nn.Module) -> None:
    """Fold the norms of modules that are not ours, where that is proved to be the same."""
    kept: dict[str, list[str]] = {}
    for name, found in provable_pairs(model):
        if isinstance(found, str):
            folded = _folded(model.get_submodule(found), model.get_submodule(name))
            model.set_submodule(found, folded)
            model.set_submodule(name, nn.Identity())
        else:
            kept.setdefault(str(found), []).append(name)
    for reason, names in kept.items():
        others = f" and {len(names) - 1} others stay" if names[1:] else " stays"
        log.warning("deploy: batch norm %s%s, for %s", names[0], others, reason)


def _exact(layer: nn.Module) -> Any:
    """A copy in float64 and evaluation, of a layer that is its weights and nothing else."""
    if not is_plain(layer):
        raise DeployError(
            f"a layer to fold is of type {type(layer).__name__}, or has hooks; expected a plain "
            "convolution and batch norm: deploy the model before changing its layers"
        )
    return copy.deepcopy(layer).double().eval()


def _parameter(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value, requires_grad=False)

"""Which operations are counted, which are known not to multiply, and what becomes of the others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from benchmark.energy.weights import Weights, tensors_in

CONVOLUTIONS = {"aten::convolution", "aten::_convolution"}
EVENT_CONVOLUTION = "spikebench::event_conv2d"  # a convolution of the backbones that skips zeros
PRODUCTS = {  # the position of the first of the two matrices among the arguments
    "aten::mm": 0,
    "aten::bmm": 0,
    "aten::mv": 0,
    "aten::dot": 0,
    "aten::vdot": 0,
    "aten::addmm": 1,
    "aten::addmm_": 1,
    "aten::_addmm_activation": 1,
    "aten::addmv": 1,
    "aten::addmv_": 1,
    "aten::baddbmm": 1,
    "aten::baddbmm_": 1,
    "aten::addbmm": 1,
    "aten::addbmm_": 1,
}
MULTIPLICATIONS = {"aten::mul", "aten::mul_"}

_WITHOUT_RULE = {  # products that hide behind other names
    "aten::_cudnn_rnn",
    "aten::_trilinear",
    "aten::miopen_rnn",
    "aten::mkldnn_rnn_layer",
}
_MOVES = {  # read weights as they are
    "aten::embedding",
    "aten::gather",
    "aten::index",
    "aten::index_put",
    "aten::index_put_",
    "aten::index_select",
    "aten::scatter",
    "aten::slice_scatter",
    "aten::cat",
    "aten::stack",
}
_ELEMENTWISE = {  # beyond the operations that PyTorch tags as pointwise
    "aten::_softmax",
    "aten::_log_softmax",
    "aten::native_batch_norm",
    "aten::_native_batch_norm_legit",
    "aten::_native_batch_norm_legit_no_training",
    "aten::_batch_norm_impl_index",
    "aten::_batch_norm_with_update",
    "aten::_batch_norm_no_update",
    "aten::batch_norm",
    "aten::cudnn_batch_norm",
    "aten::miopen_batch_norm",
    "aten::native_layer_norm",
    "aten::native_group_norm",
    "aten::_fused_rms_norm",
    "aten::grid_sampler_2d",
    "aten::grid_sampler_3d",
    "aten::upsample_bicubic2d",
    "aten::upsample_bilinear2d",
    "aten::_upsample_bicubic2d_aa",
    "aten::_upsample_bilinear2d_aa",
    "aten::upsample_linear1d",
    "aten::upsample_trilinear3d",
    "torchvision::roi_align",
    "torchvision::ps_roi_align",
}
_FREE_FOREIGN = {"torchvision::nms", "torchvision::roi_pool", "torchvision::ps_roi_pool"}
# pointwise, and neither a product nor a function that needs one
# fmt: off
_ADDITIVE = {
    "abs", "add", "bitwise_and", "bitwise_left_shift", "bitwise_not", "bitwise_or",
    "bitwise_right_shift", "bitwise_xor", "ceil", "clamp", "clamp_max", "clamp_min", "clone",
    "copy", "copysign", "eq", "fill", "floor", "frac", "ge", "gt", "hardtanh", "heaviside",
    "isfinite", "isinf", "isnan", "isneginf", "isposinf", "le", "logical_and", "logical_not",
    "logical_or", "logical_xor", "lt", "masked_fill", "maximum", "minimum", "fmax", "fmin",
    "nan_to_num", "ne", "neg", "ones_like", "positive", "relu", "round", "rsub", "sgn",
    "sign", "signbit", "sub", "threshold", "trunc", "where", "zeros_like", "_to_copy",
}
# fmt: on


class Arithmetic(NamedTuple):
    """Arithmetic of one call that is in no row: why it is not, and its multiplications."""

    reason: Literal["elementwise", "no rule"]
    multiplications: float | None

    def plus(self, before: Arithmetic | None) -> Arithmetic:
        """This and what went before it; what is not known of one is not known of the sum."""
        if before is None:
            return self
        if self.multiplications is None or before.multiplications is None:
            return self._replace(multiplications=None)
        return self._replace(multiplications=self.multiplications + before.multiplications)


def uncounted(
    func: Any, args: Sequence[Any], kwargs: Any, output: Any, weights: Weights
) -> Arithmetic | None:
    """What an operation without a counting rule multiplies; None where it only adds or moves.

    Args:
        func: the operation.
        args: its arguments.
        kwargs: its arguments by name.
        output: what it gave.
        weights: the weights of the model.
    """
    kind = _kind(func)
    if kind == "free":
        return None
    read = [x for x in tensors_in([*args, *kwargs.values()]) if x.numel() > 1]
    outputs = [x for x in tensors_in([output]) if x.is_floating_point()]
    if not outputs or all(x in weights for x in read):  # what weights alone make folds away
        return None
    if kind == "elementwise":
        return Arithmetic("elementwise", float(outputs[0].numel()))
    if func.overloadpacket in flop_registry:
        flops = flop_registry[func.overloadpacket](*args, **kwargs, out_val=output)
        return Arithmetic("no rule", flops / 2)
    if kind == "attention":
        return Arithmetic("no rule", sdpa_flop_count(*(x.shape for x in args[:3])) / 2)
    matrices = [x for x in read if x in weights and x.dim() > 1]
    if kind == "other" and not matrices:
        return None
    if "rnn" in func._schema.name:  # every weight meets every step of the sequence
        steps = read[0].numel() / read[0].shape[-1]
        return Arithmetic("no rule", steps * sum(x.numel() for x in matrices))
    maps = outputs[0]
    channels = maps.shape[1] if maps.dim() > 3 else maps.shape[-1]
    estimate = maps.numel() / channels * sum(x.numel() for x in matrices)
    return Arithmetic("no rule", estimate or None)


@cache
def _kind(func: Any) -> Literal["free", "elementwise", "attention", "foreign", "other"]:
    """What an operation is, told from its name and tags alone."""
    name = func._schema.name
    if name in _ELEMENTWISE:
        return "elementwise"
    if name.startswith("aten::_scaled_dot_product"):
        return "attention"
    if name in _WITHOUT_RULE:
        return "foreign"
    if not name.startswith(("aten::", "prim")):
        return "free" if name in _FREE_FOREIGN else "foreign"
    if func.is_view or name in _MOVES:
        return "free"
    if torch.Tag.pointwise in func.tags:
        bare = name.removeprefix("aten::").rstrip("_")
        return "free" if bare in _ADDITIVE else "elementwise"
    return "other"

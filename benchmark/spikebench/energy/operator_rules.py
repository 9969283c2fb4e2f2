"""Which operations are counted, which are known not to multiply, and what becomes of the others."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from spikebench.energy.weight_tracking import WeightTracker, tensors_in

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

ELEMENTWISE = {  # beyond the operations that PyTorch tags as pointwise
    "aten::_softmax",
    "aten::_safe_softmax",
    "aten::hardswish_",
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
_REDUCTIONS = {  # multiply every value that they read
    "aten::cumprod",
    "aten::linalg_vector_norm",
    "aten::norm",
    "aten::prod",
    "aten::std",
    "aten::std_mean",
    "aten::var",
    "aten::var_mean",
}
# Neither pointwise nor views, and without a product: what moves, chooses, compares, adds up or
# makes values. Patterns of `fnmatch`, without the name space.
# fmt: off
_FREE = (
    "alias*", "amax", "amin", "aminmax", "any", "all", "arange*", "arg*", "as_strided*",
    "_assert*", "avg_pool*", "_adaptive_avg_pool*", "adaptive_max_pool*", "bernoulli*", "bincount",
    "bucketize", "cat", "channel_shuffle", "clone", "col2im", "constant_pad_nd", "copy*",
    "count_nonzero", "cummax",
    "cummin", "cumsum", "detach*", "diag*", "dropout*", "embedding*", "_embedding_bag*", "empty*",
    "equal", "expand*", "eye*", "fill*", "flip", "full*", "gather", "hist*", "im2col", "index*",
    "_index*", "is_*", "item", "isin*", "kthvalue", "lift*", "linspace*", "_local_scalar_dense",
    "masked_*", "max", "max_pool*", "max_unpool*", "mean", "median", "min", "mode", "multinomial",
    "nanmedian", "nansum", "narrow*", "native_dropout", "new_*", "nll_loss*", "nonzero*", "normal*",
    "one_hot", "ones*", "pad*", "permute*", "pixel_*", "put*", "rand*", "_reshape*", "reflection_*",
    "repeat*", "replication_*", "reshape*", "resize*", "roll", "rot90", "scalar_tensor", "scatter*",
    "searchsorted", "select*", "set_*", "slice*", "sort*", "split*", "squeeze*", "stack", "sum*",
    "sym_*", "t_copy", "take*", "to_*", "_to_*", "topk", "transpose*", "tril*", "triu*", "unbind*",
    "unfold*", "_unique*", "unique*", "uniform*", "unsqueeze*", "_unsafe_*", "upsample_nearest*",
    "view*", "where", "zero*", "zeros*",
)
# fmt: on
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
    func: Any, args: Sequence[Any], kwargs: Any, output: Any, weights: WeightTracker
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
    outputs = [x for x in tensors_in([output]) if x.dtype != torch.bool]
    if not outputs or all(x in weights for x in read):  # what weights alone make folds away
        return None
    if kind == "elementwise":
        return Arithmetic("elementwise", float(outputs[0].numel()))
    if kind == "reduction":
        return Arithmetic("elementwise", float(read[0].numel()))
    if func.overloadpacket in flop_registry:
        flops = flop_registry[func.overloadpacket](*args, **kwargs, out_val=output)
        return Arithmetic("no rule", flops / 2)
    if kind == "attention":
        return Arithmetic("no rule", sdpa_flop_count(*(x.shape for x in args[:3])) / 2)
    matrices = [x for x in read if x in weights and x.dim() > 1]
    if kind == "recurrent":  # every weight meets every step of the sequence
        steps = read[0].numel() / read[0].shape[-1]
        return Arithmetic("no rule", steps * sum(x.numel() for x in matrices))
    maps = outputs[0]
    channels = maps.shape[1] if maps.dim() > 3 else maps.shape[-1] if maps.dim() > 0 else 1
    estimate = maps.numel() / max(1, channels) * sum(x.numel() for x in matrices)
    return Arithmetic("no rule", estimate or None)


Kind = Literal["free", "elementwise", "reduction", "attention", "recurrent", "other"]


@cache
def _kind(func: Any) -> Kind:
    """What an operation is, told from its name and tags alone."""
    name = func._schema.name
    bare = name.partition("::")[2]
    if name in ELEMENTWISE:
        return "elementwise"
    if name in _REDUCTIONS:
        return "reduction"
    if bare.startswith("_scaled_dot_product"):
        return "attention"
    if "rnn" in bare:
        return "recurrent"
    if not name.startswith(("aten::", "prim")):
        return "free" if name in _FREE_FOREIGN else "other"
    if func.is_view or name.startswith("prim"):
        return "free"
    if torch.Tag.pointwise in func.tags:
        return "free" if bare.rstrip("_") in _ADDITIVE else "elementwise"
    return "free" if any(fnmatchcase(bare.rstrip("_"), pattern) for pattern in _FREE) else "other"

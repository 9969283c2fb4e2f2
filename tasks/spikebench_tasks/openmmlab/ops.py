"""A stand-in for `mmcv._ext`, the compiled half of mmcv, on torchvision's kernels and PyTorch.

`mmcv-lite` is mmcv without `mmcv._ext`; `import mmcv.ops`, and with it `import mmdet.models`, fails
there. `_spikebench_mmcv` adds an import finder that provides it from here:

- `nms`, `roi_align_forward` and `roi_align_backward` run on torchvision, the latter two on a CPU on
  a kernel of our own, which is what Mask R-CNN needs to train and to evaluate;
- `sigmoid_focal_loss_forward` and `sigmoid_focal_loss_backward`, which RetinaNet trains with where
  there is a GPU, are written in PyTorch;
- every other op is present, because mmcv asserts on the names at import, and raises
  NotImplementedError when it is called.

An op here has the name, the arguments and the buffers that mmcv's Python code calls it with.
Numbers narrower than 32 bits are computed in float32, on every device: torchvision's CPU kernels
take no bfloat16, and its `nms` no half precision either; a focal loss needs the precision.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any, NoReturn

import torch
import torchvision
from torch import Tensor
from torch.nn.functional import logsigmoid

from _spikebench_mmcv import EXTENSION
from spikebench_tasks.openmmlab import roi_align

MAX_POOLING, AVERAGE_POOLING = 0, 1


def stand_in() -> dict[str, Any]:
    """The names of the stand-in module, with a `__getattr__` for the ops that it lacks."""
    ops = (
        nms,
        roi_align_forward,
        roi_align_backward,
        sigmoid_focal_loss_forward,
        sigmoid_focal_loss_backward,
        get_compiler_version,
        get_compiling_cuda_version,
    )
    return {**{op.__name__: op for op in ops}, "__getattr__": _missing_op}


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Keep the boxes that overlap no better one by more than a threshold.

    Args:
        boxes: Corners x1, y1, x2, y2 in pixels, of shape `(N, 4)`.
        scores: One score a box, of shape `(N,)`.
        iou_threshold: Intersection over union above which the lower-scored box goes; one that
            equals it stays.
        offset: 0, or 1 where x2 and y2 are the last pixels inside a box, so that a box is
            x2 - x1 + 1 wide.

    Returns:
        Indices of the kept boxes, best score first, int64 of shape `(K,)`.

    Example:
        >>> boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 6.0]])  # IoU 0.6
        >>> nms(boxes, torch.tensor([0.8, 0.9]), iou_threshold=0.5, offset=0).tolist()
        [1]
    """
    dtype = _compute_dtype(boxes, scores)
    boxes = boxes.to(dtype)
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    # mmcv compares in the boxes' own precision. torchvision's CPU kernel compares a float32 IoU
    # with a double: an IoU of exactly 0.3 would exceed a threshold of 0.3.
    threshold = torch.tensor(iou_threshold, dtype=dtype).item()
    return torchvision.ops.nms(boxes, scores.to(dtype), threshold)


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Pool each region of a feature map into a grid of bins, bilinearly sampled and averaged.

    Args:
        input: Feature maps, of shape `(B, C, H, W)`.
        rois: Batch index and corners x1, y1, x2, y2 in pixels of the image, of shape `(K, 5)`.
        output: Receives the pooled regions, of shape `(K, C, aligned_height, aligned_width)`.
        argmax_y: Max pooling's record of what it took; not touched.
        argmax_x: As `argmax_y`.
        aligned_height: Rows of bins.
        aligned_width: Columns of bins.
        spatial_scale: Feature map pixels per image pixel.
        sampling_ratio: Samples along each side of a bin; 0 takes one a feature map pixel.
        pool_mode: 1 for the average; 0, the maximum, is not supported.
        aligned: Whether a pixel's value stands at its centre, half a pixel from its corner. Without
            it a region is also at least one feature map pixel wide and high.

    Raises:
        NotImplementedError: If `pool_mode` is 0.
    """
    _require_average("roi_align_forward", pool_mode)
    dtype = _compute_dtype(input, rois)
    input, rois = input.to(dtype), rois.to(dtype)
    size = (aligned_height, aligned_width)
    if roi_align.is_supported(input, rois):
        pooled = roi_align.forward(input, rois, size, spatial_scale, sampling_ratio, aligned)
    else:
        pooled = torch.ops.torchvision.roi_align(
            input, rois, spatial_scale, *size, sampling_ratio, aligned
        )
    output.copy_(pooled)


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Add the gradient of `roi_align_forward` with respect to its feature maps to a buffer.

    Args:
        grad_output: Gradient of the pooled regions, of shape
            `(K, C, aligned_height, aligned_width)`.
        rois: As in `roi_align_forward`, as are the arguments that are not listed.
        argmax_y: Max pooling's record of what it took; not read.
        argmax_x: As `argmax_y`.
        grad_input: The buffer, of shape `(B, C, H, W)`.
        aligned_height: Rows of bins.
        aligned_width: Columns of bins.
        spatial_scale: Feature map pixels per image pixel.
        sampling_ratio: Samples along each side of a bin; 0 takes one a feature map pixel.
        pool_mode: 1 for the average; 0, the maximum, is not supported.
        aligned: Whether a pixel's value stands at its centre.

    Raises:
        NotImplementedError: If `pool_mode` is 0.
    """
    _require_average("roi_align_backward", pool_mode)
    dtype = _compute_dtype(grad_output, rois)
    grad_output, rois = grad_output.to(dtype), rois.to(dtype)

    if roi_align.is_supported(grad_output, rois):
        gradient = roi_align.backward(
            grad_output, rois, grad_input.shape, spatial_scale, sampling_ratio, aligned
        )
    else:
        gradient = torch.ops.torchvision._roi_align_backward(
            grad_output,
            rois,
            spatial_scale,
            aligned_height,
            aligned_width,
            *grad_input.shape,
            sampling_ratio,
            aligned,
        )
    grad_input.add_(gradient)


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Focal loss of every sample and class, each class a binary decision of its own.

    With p = sigmoid(input), it is -alpha (1 - p)^gamma log(p) for the class of the sample and
    -(1 - alpha) p^gamma log(1 - p) for the others (Lin et al., ICCV 2017, arXiv 1708.02002).

    Args:
        input: Logits, of shape `(N, classes)`.
        target: The class of each sample, int64 of shape `(N,)`; one that is none of 0 to
            classes - 1, such as MMDetection's background, is of no class.
        weight: A factor for the samples of each class, of shape `(classes,)`, where every sample
            has one; or empty.
        output: Receives the loss, of the shape of `input`.
        gamma: Exponent, at least 0, that weighs down what is decided well.
        alpha: Weight of the class of the sample, between 0 and 1.
    """
    x = input.to(_compute_dtype(input))
    p, log_p, log_not_p = x.sigmoid(), logsigmoid(x), logsigmoid(-x)
    of_class = -alpha * (1 - p) ** gamma * log_p
    of_other = -(1 - alpha) * p**gamma * log_not_p
    output.copy_(_by_class(of_class, of_other, target, weight))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """The derivative of `sigmoid_focal_loss_forward`, each loss by its own logit.

    Args:
        input: As in `sigmoid_focal_loss_forward`, as are the arguments that are not listed.
        target: The class of each sample.
        weight: A factor for the samples of each class, or empty.
        grad_input: Receives the derivative, of the shape of `input`.
        gamma: Exponent.
        alpha: Weight of the class of the sample.
    """
    x = input.to(_compute_dtype(input))
    p, log_p, log_not_p = x.sigmoid(), logsigmoid(x), logsigmoid(-x)
    of_class = -alpha * (1 - p) ** gamma * (1 - p - gamma * p * log_p)
    of_other = (1 - alpha) * p**gamma * (p - gamma * (1 - p) * log_not_p)
    grad_input.copy_(_by_class(of_class, of_other, target, weight))


def get_compiler_version() -> str:
    """Return what mmcv's environment report prints where there is no compiler, `"n/a"`."""
    return "n/a"


def get_compiling_cuda_version() -> str:
    """Return what mmcv's environment report prints where there is no compiler, `"n/a"`."""
    return "n/a"


def _compute_dtype(*tensors: Tensor) -> torch.dtype:
    """The widest of float32 and the tensors' own types."""
    return reduce(torch.promote_types, (tensor.dtype for tensor in tensors), torch.float32)


def _by_class(of_class: Tensor, of_other: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Take one value for the class of a sample and the other elsewhere, and weigh the samples."""
    classes = torch.arange(of_class.shape[1], device=target.device)
    taken = torch.where(target[:, None] == classes, of_class, of_other)
    return taken * weight.to(taken.dtype)[target][:, None] if len(weight) else taken


def _require_average(op: str, pool_mode: int) -> None:
    if pool_mode == MAX_POOLING:
        raise NotImplementedError(
            f"{op} with pool_mode='max': torchvision's kernel only averages; "
            "use pool_mode='avg' or install a compiled mmcv in place of mmcv-lite"
        )
    if pool_mode != AVERAGE_POOLING:
        raise ValueError(f"{op}: pool_mode is 0 (max) or 1 (avg), not {pool_mode!r}")


def _missing_op(name: str) -> Callable[..., NoReturn]:
    """Stand for an op that is missing here; the module's `__getattr__`."""
    # What asks for a private name is Python probing the module, not mmcv after an op.
    if name.startswith("_"):
        raise AttributeError(f"module {EXTENSION!r} has no attribute {name!r}")

    def missing(*args: object, **kwargs: object) -> NoReturn:
        raise NotImplementedError(
            f"the mmcv op {name!r} needs compiled code, which mmcv-lite lacks and nothing "
            "here replaces; install a compiled mmcv in place of mmcv-lite"
        )

    missing.__name__ = missing.__qualname__ = name
    return missing

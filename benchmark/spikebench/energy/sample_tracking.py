"""Which axis of the tensors of a pass is time, and which the images.

Nothing in a tensor says so, and a shape that fits by chance, such as that of regions of interest,
proves nothing. What is known comes from two sources: the images of the batch, and neurons, which
give `(T, B, ...)` or, called once per time step, `(B, ...)`. Views keep it, and operations that
work on each sample alone hand it on from input to output. In any other tensor samples count as not
told apart.

With T = 4 and 2 images: a LIF gives `(4, 2, C, H, W)`, noted as 4 steps of 2 images. Its view
`flatten(0, 1)` has the same storage, so it is known too, and the convolution that reads it gives
`(8, C', H', W')` of 8 samples, time first; its 8 counts of non-zeros become a table `(4, 2)`. A
pooled tensor in which the samples were transposed has another slowest axis, and is not told apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spikebench.energy.operator_rules import CONVOLUTIONS, ELEMENTWISE, EVENT_CONVOLUTION, PRODUCTS
from spikebench.energy.tensor_statistics import SampleShape
from spikebench.energy.weight_tracking import StorageKey, storage_of, tensors_in
from spikebench.neurons import Neuron

_COPIES = {"aten::clone", "aten::_to_copy", "aten::_reshape_copy"}
_EACH_SAMPLE = {  # beyond convolutions, products, pointwise operations and norms
    *(*CONVOLUTIONS, *PRODUCTS, *ELEMENTWISE, EVENT_CONVOLUTION),
    *(f"aten::{kind}_pool{axes}d" for kind in ("avg", "_adaptive_avg") for axes in (2, 3)),
    *(f"aten::max_pool{axes}d_with_indices" for axes in (2, 3)),
    *(f"aten::upsample_nearest{axes}d" for axes in (1, 2, 3)),
    "aten::max_pool2d",
    "aten::adaptive_max_pool2d",
    "aten::constant_pad_nd",
}
_REDUCTIONS = {"aten::mean", "aten::sum", "aten::amax"}


class SampleTracker:
    """Follows the samples of a batch through one pass, by the storages of tensors.

    Args:
        steps: time steps that an image is seen for.
        images: images in the batch.
    """

    def __init__(self, steps: int, images: int) -> None:
        self.whole = SampleShape(steps, images)
        self._known: dict[StorageKey, tuple[SampleShape, int]] = {}
        self._spikes: set[StorageKey] = set()
        self._one_by_one: set[StorageKey] = set()  # images, one tensor each

    def note_images(self, images: Tensor | Sequence[Tensor]) -> None:
        """Note the images of a batch: one tensor `(B, ...)`, or one tensor for each."""
        if not isinstance(images, Tensor):
            self._one_by_one = {storage_of(x) for x in images}
        elif images.dim() > 1:
            self._note(images, SampleShape(images=self.whole.images))

    def note_spikes(self, neuron: nn.Module, x: Tensor) -> None:
        """Note what a neuron gave."""
        self._note(x, self._of_spikes(neuron, x))
        self._spikes.add(storage_of(x))

    def as_samples(self, x: Tensor) -> Tensor:
        """`(T, B, ...)` with its samples as one first axis, if it is known to be that."""
        if self.whole.total > 1 and _begins(x, self.whole) and self._of(x) == self.whole:
            return x.flatten(0, 1)
        return x

    def _of_spikes(self, neuron: nn.Module, x: Tensor) -> SampleShape:
        """Ours give time first; others say so by a mode, or by a shape that fits nothing else."""
        steps, images = self.whole
        mode = getattr(neuron, "step_mode", "m" if isinstance(neuron, Neuron) else None)
        single = x.dim() > 0 and x.shape[0] == images
        if _begins(x, self.whole) and (mode == "m" or (mode is None and steps != images)):
            return self.whole
        if mode != "m" and single and (mode == "s" or not _begins(x, self.whole)):
            return SampleShape(images=images)
        return SampleShape(steps=steps) if mode == "m" and len(x) == steps else SampleShape()

    def are_spikes(self, x: Tensor) -> bool:
        """Whether a tensor is what a neuron gave, or a view or copy of it."""
        return storage_of(x) in self._spikes

    def follow(self, func: Any, name: str, args: Sequence[Any], result: Any) -> None:
        """Note what becomes of samples in an operation.

        Only the first output is followed: norms also give their statistics.
        """
        output = next(tensors_in([result]), None)
        self._follow_one_by_one(name, args, output)
        x = next((x for x in tensors_in(args) if self._knows(x)), None)
        if x is None or output is None or output.dim() == 0:
            return
        if name in _COPIES:
            self._note(output, self._of_copy(x))
            if self.are_spikes(x):
                self._spikes.add(storage_of(output))
        elif name == "aten::copy_" or name in _EACH_SAMPLE or torch.Tag.pointwise in func.tags:
            alike = len(output) == len(x) and _leads(output)
            self._note(output, self._of(x) if alike else SampleShape())
        elif name == "aten::cat":
            beside = len(args) > 1 and args[1] % output.dim() != 0 and _leads(output)
            self._note(output, self._of(x) if beside else SampleShape())
        elif name == "aten::repeat":
            in_time = list(args[1]) == [self.whole.steps, *[1] * x.dim()]
            known = self._of(x) == SampleShape(images=self.whole.images)
            self._note(output, self.whole if in_time and known else SampleShape())
        elif name in _REDUCTIONS:
            self._note(output, self._of_reduction(x, args))

    def _follow_one_by_one(self, name: str, args: Sequence[Any], output: Tensor | None) -> None:
        """Images that come one by one are normalised and padded, and then stacked."""
        if output is None or not self._one_by_one:
            return
        singles = [storage_of(x) in self._one_by_one for x in tensors_in(args)]
        if not any(singles):
            return
        if name == "aten::stack":
            first = len(args) == 1 or args[1] == 0
            if all(singles) and first and len(singles) == self.whole.images:
                self._note(output, SampleShape(images=self.whole.images))
        elif sum(singles) == 1:
            self._one_by_one.add(storage_of(output))

    def of_samples(self, *tensors: Tensor) -> SampleShape:
        """The samples of tensors that lie alike: their first axis is these, or rows of each."""
        for x in tensors:
            samples = self._of(x)
            if samples.total > 1 and len(x) % samples.total == 0:
                return samples
            repeated = self._knows(x) and not x.stride(0)  # one image, the same at all time steps
            if repeated and len(x) == self.whole.total == self.whole.steps:
                return self.whole
        return SampleShape()

    def of_masked(self, shape: Sequence[int], *operands: Tensor) -> SampleShape:
        """The samples of an elementwise product of the given shape."""
        known = any(self._of(x) == self.whole for x in operands)
        fits = tuple(shape[:2]) == self.whole or shape[0] == self.whole.total
        return self.whole if known and fits else SampleShape()

    def _note(self, x: Tensor, samples: SampleShape) -> None:
        self._known[storage_of(x)] = (samples, _span(x))

    def _knows(self, x: Tensor) -> bool:
        return x.layout is torch.strided and storage_of(x) in self._known

    def _of(self, x: Tensor) -> SampleShape:
        """The samples of a tensor whose first axis runs over all of what was noted."""
        samples, span = self._known.get(storage_of(x), (SampleShape(), 0))
        return samples if _leads(x) and _span(x) == span else SampleShape()

    def _of_copy(self, x: Tensor) -> SampleShape:
        """The samples of a copy of `x`.

        `x` may also be an image expanded over time, or have time and images swapped.
        """
        if _leads(x) or x.dim() < 2:
            return self._of(x)
        images = SampleShape(images=self.whole.images)
        before = x[0] if x.stride(0) == 0 else x.transpose(0, 1)
        if _begins(x, self.whole) and self._of(before) == images:
            return self.whole
        return (
            images
            if _begins(before, self.whole) and self._of(before) == self.whole
            else SampleShape()
        )

    def _of_reduction(self, x: Tensor, args: Sequence[Any]) -> SampleShape:
        given = args[1] if len(args) > 1 else None
        if not isinstance(given, int | list | tuple):
            return SampleShape()
        axes = {axis % x.dim() for axis in ([given] if isinstance(given, int) else given)}
        if 0 not in axes:
            return self._of(x)
        over_time = axes == {0} and self._of(x) == self.whole and _begins(x, self.whole)
        return SampleShape(images=self.whole.images) if over_time else SampleShape()


def _begins(x: Tensor, whole: SampleShape) -> bool:
    return x.dim() > 1 and tuple(x.shape[:2]) == whole


def _leads(x: Tensor) -> bool:
    """Whether the first axis is the slowest in memory, so that nothing was transposed before it."""
    strides = [stride for stride, size in zip(x.stride(), x.shape, strict=True) if size > 1]
    return not strides or x.shape[0] == 1 or strides[0] == max(strides)


def _span(x: Tensor) -> int:
    """How far a tensor reaches in memory, all of its samples counted."""
    if x.dim() > 0 and len(x) > 1:
        return len(x) * x.stride(0)
    return max((size * stride for size, stride in zip(x.shape, x.stride(), strict=True)), default=1)

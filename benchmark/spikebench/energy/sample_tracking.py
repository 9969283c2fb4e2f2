"""How the samples of a batch lie in the tensors of a pass: which axis is time, which the images.

Nothing in a tensor says which of its axes is time, and a shape that fits by chance, such as that of
regions of interest, proves nothing. What is known comes from two sources: the batch, whose first
axis is the images, and neurons, which give `(T, B, ...)` or, called once a time step, `(B, ...)`.
Views keep it, and operations that work on each sample alone hand it on from input to output. Of any
other tensor the samples count as not told apart.
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
    """The layouts of one pass.

    Args:
        steps: time steps that an image is seen for.
        images: images in the batch.
    """

    def __init__(self, steps: int, images: int) -> None:
        self.whole = SampleShape(steps, images)
        self._known: dict[StorageKey, tuple[SampleShape, int]] = {}
        self._spikes: set[StorageKey] = set()
        self._single: set[StorageKey] = set()

    def note_images(self, images: Tensor | Sequence[Tensor]) -> None:
        """Note the images of a batch: one tensor `(B, ...)`, or one tensor for each."""
        if not isinstance(images, Tensor):
            self._single = {storage_of(x) for x in images}
        elif images.dim() > 1:
            self._note(images, SampleShape(images=self.whole.images))

    def note_spikes(self, neuron: nn.Module, x: Tensor) -> None:
        """Note what a neuron gave."""
        self._note(x, self._of_spikes(neuron, x))
        self._spikes.add(storage_of(x))

    def as_samples(self, x: Tensor) -> Tensor:
        """`(T, B, ...)` with its samples as one first axis, if it is known to be that."""
        if self.whole.samples > 1 and _begins(x, self.whole) and self._of(x) == self.whole:
            return x.flatten(0, 1)
        return x

    def _of_spikes(self, neuron: nn.Module, x: Tensor) -> SampleShape:
        """Ours have time first; of others a mode says so, or a shape that can be nothing else."""
        steps, images = self.whole
        mode = getattr(neuron, "step_mode", "m" if isinstance(neuron, Neuron) else None)
        single = x.dim() > 0 and x.shape[0] == images
        if _begins(x, self.whole) and (mode == "m" or (mode is None and steps != images)):
            return self.whole
        if mode != "m" and single and (mode == "s" or not _begins(x, self.whole)):
            return SampleShape(images=images)
        return SampleShape(steps=steps) if mode == "m" and len(x) == steps else SampleShape()

    def are_spikes(self, x: Tensor) -> bool:
        """Whether a tensor is what a neuron gave, a view of it or a copy."""
        return storage_of(x) in self._spikes

    def follow(self, func: Any, name: str, args: Sequence[Any], result: Any) -> None:
        """Note what becomes of samples in an operation; norms give their statistics as well."""
        output = next(tensors_in([result]), None)
        self._follow_single(name, args, output)
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

    def _follow_single(self, name: str, args: Sequence[Any], output: Tensor | None) -> None:
        """Images that come one by one are normalised and padded, and then stacked."""
        singles = [storage_of(x) in self._single for x in tensors_in(args)] if self._single else []
        if output is None or not any(singles):
            return
        if name == "aten::stack":
            first = len(args) == 1 or args[1] == 0
            if all(singles) and first and len(singles) == self.whole.images:
                self._note(output, SampleShape(images=self.whole.images))
        elif sum(singles) == 1:
            self._single.add(storage_of(output))

    def of_samples(self, *tensors: Tensor) -> SampleShape:
        """Of tensors that lie alike and whose first axis is samples, or several rows of each."""
        for x in tensors:
            layout = self._of(x)
            if layout.samples > 1 and len(x) % layout.samples == 0:
                return layout
            # one image, the same at all time steps
            if (
                self._knows(x)
                and len(x) == self.whole.samples == self.whole.steps
                and not x.stride(0)
            ):
                return self.whole
        return SampleShape()

    def of_masked(self, shape: Sequence[int], *operands: Tensor) -> SampleShape:
        """Of an elementwise product of the given shape."""
        known = any(self._of(x) == self.whole for x in operands)
        fits = tuple(shape[:2]) == self.whole or shape[0] == self.whole.samples
        return self.whole if known and fits else SampleShape()

    def _note(self, x: Tensor, layout: SampleShape) -> None:
        self._known[storage_of(x)] = (layout, _span(x))

    def _knows(self, x: Tensor) -> bool:
        return x.layout is torch.strided and storage_of(x) in self._known

    def _of(self, x: Tensor) -> SampleShape:
        """The layout of a tensor whose first axis runs over all of what was noted."""
        layout, span = self._known.get(storage_of(x), (SampleShape(), 0))
        return layout if _leads(x) and _span(x) == span else SampleShape()

    def _of_copy(self, x: Tensor) -> SampleShape:
        """Also of an image repeated over time without a copy, and of time and images swapped."""
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

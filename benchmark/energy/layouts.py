"""How the samples of a batch lie in the tensors of a pass: which axis is time, which the images.

Nothing in a tensor says which of its axes is time. Neurons tell: what they give is `(T, B, ...)`,
`(T * B, ...)` or, called once a time step, `(B, ...)`; and views and copies of it keep that. Of
other tensors only the shape is known, and a shape that fits by chance, such as that of regions of
interest, proves nothing: where it could, samples count as not told apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from benchmark.energy.statistics import Layout
from benchmark.energy.weights import StorageKey, storage_of

_COPIES = {"aten::clone", "aten::_to_copy", "aten::_reshape_copy", "aten::contiguous"}


class Layouts:
    """The layouts of one pass.

    Args:
        steps: time steps that an image is seen for.
        images: images in the batch.
    """

    def __init__(self, steps: int, images: int) -> None:
        self.whole = Layout(steps, images)
        self._known: dict[StorageKey, Layout] = {}

    def note_spikes(self, x: Tensor) -> Tensor:
        """Note what a neuron gave, and return it with its samples as one first axis."""
        steps, images = self.whole
        samples = self.samples_first(x)
        if samples is not None:
            self._known[storage_of(x)] = self.whole
            return samples
        alone = Layout()
        if x.dim() > 0 and x.shape[0] in (steps, images):
            alone = Layout(steps=steps) if x.shape[0] == steps else Layout(images=images)
        self._known[storage_of(x)] = alone
        return x

    def are_spikes(self, x: Tensor) -> bool:
        """Whether a tensor is what a neuron gave, a view of it or a copy."""
        return storage_of(x) in self._known

    def samples_first(self, x: Tensor) -> Tensor | None:
        """`(T, B, ...)` and `(T * B, ...)` as the latter; None of any other shape."""
        if x.dim() > 1 and tuple(x.shape[:2]) == self.whole:
            return x.flatten(0, 1)
        return x if x.dim() > 0 and x.shape[0] == self.whole.samples else None

    def follow(self, name: str, x: Any, output: Any) -> None:
        """Copies lie as their originals do."""
        if name in _COPIES and storage_of(x) in self._known and _leads(x):
            self._known[storage_of(output)] = self._known[storage_of(x)]

    def of_maps(self, x: Tensor) -> Layout:
        """Of maps or features whose first axis is samples, if it is anything."""
        known = self._provenance(x)
        if known is not None:
            return known
        if x.shape[0] == self.whole.samples:
            return self.whole
        return Layout(images=x.shape[0]) if x.shape[0] == self.whole.images else Layout()

    def of_matrices(self, *matrices: Tensor) -> Layout:
        """Of batches of matrices `(samples * heads, ...)`, all of which lie alike."""
        for x in matrices:
            known = self._provenance(x)
            if known is not None:
                return known
        if self.whole.steps == 1 and matrices[0].shape[0] % self.whole.images == 0:
            return self.whole
        return self.of_maps(matrices[0])

    def of_masked(self, shape: Sequence[int], *operands: Tensor) -> Layout:
        """Of an elementwise product of the given shape."""
        whole = self.whole
        known = any(self._known.get(storage_of(x)) == whole and _leads(x) for x in operands)
        fits = tuple(shape[:2]) == whole or shape[0] == whole.samples
        return whole if fits and (known or whole.steps == 1) else Layout()

    def _provenance(self, x: Tensor) -> Layout | None:
        layout = self._known.get(storage_of(x))
        fits = layout is not None and x.shape[0] % layout.samples == 0 and _leads(x)
        return layout if fits else None


def _leads(x: Tensor) -> bool:
    """Whether the first axis is the slowest in memory, so that nothing was transposed before it."""
    strides = [stride for stride, size in zip(x.stride(), x.shape, strict=True) if size > 1]
    return not strides or x.shape[0] == 1 or strides[0] == max(strides)

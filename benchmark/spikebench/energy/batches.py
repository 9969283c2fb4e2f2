"""The images of a batch: the tensors that hold them, and how many there are.

What a batch is made of is up to whoever runs the model. A tensor `(B, ...)`, alone or first in a
tuple or list, speaks for itself; of any other batch a function `images(batch)` says which its
images are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor

Images = int | Tensor | Sequence[Tensor]
"""The images of a batch: a tensor `(B, ...)`; B tensors, one for each image; or B alone, where they
lie in neither way, such as behind an axis of time."""

FindImages = Callable[[Any], Images]


def images_of(batch: Any, find: FindImages | None = None) -> Images:
    """The images of a batch.

    Args:
        batch: a tensor `(B, ...)`, a tuple or list that begins with one, or whatever `find` takes.
        find: gives the images of a batch.

    Raises:
        TypeError: there is no `find`, and the batch is none of these.
    """
    if find is not None:
        return find(batch)
    if isinstance(batch, list) and all(isinstance(x, Tensor) and x.dim() == 3 for x in batch):
        first = None  # images (C, H, W), or images and labels of one axis less: ambiguous
    else:
        first = batch[0] if isinstance(batch, tuple | list) and batch else batch
    if isinstance(first, Tensor) and first.dim() > 0:
        return first
    raise TypeError(
        f"cannot tell the number of images in a batch of type {type(batch).__name__}; expected a "
        "tensor (B, ...), or a tuple or list that begins with one: say which the images are with "
        "images=lambda batch: ..."
    )


def number_of(images: Images) -> int:
    """How many images there are."""
    return images if isinstance(images, int) else len(images)


def count_images(batch: Any, find: FindImages | None = None) -> int:
    """How many images a batch holds; see `images_of`."""
    return number_of(images_of(batch, find))


def until_counted(
    batches: Iterable[Any], count: int, find: FindImages | None = None
) -> Iterator[Any]:
    """Whole batches until at least `count` images were given."""
    given = 0
    for batch in batches:
        yield batch
        given += count_images(batch, find)
        if given >= count:
            return

"""Checks of images and label maps: whether they decode, and hold valid sizes and labels."""

from __future__ import annotations

import os
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image

from spikebench.progress import Progress

NOTHING_LABELLED = "label maps without a labelled pixel"
_AT_ONCE = 64
_UNDECODABLE = (
    Image.DecompressionBombError,
    EOFError,
    IndexError,
    OSError,
    OverflowError,
    SyntaxError,  # what Pillow raises for a broken PNG
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
_TURNED = (5, 6, 7, 8)  # orientations that swap width and height
_ONE_CHANNEL = {"1", "L", "P", "I", "I;16", "I;16B", "F"}


class Listed(NamedTuple):
    """An image that a data set lists.

    Attributes:
        path: of the image.
        name: what else it is called, as " (image 7)"; may be empty.
        size: width and height that the annotations say, in pixels; None if they say none.
        labels: path of its label map; None if it has none.
    """

    path: str
    name: str = ""
    size: tuple[int, int] | None = None
    labels: str | None = None


class LabelRange(NamedTuple):
    """Which labels a map may hold.

    Attributes:
        classes: how many there are.
        zero_is_none: whether 0 is for pixels of no class, and classes start at 1.
        ignored: the other label for pixels of no class.
    """

    classes: int
    zero_is_none: bool = False
    ignored: int = 255

    @property
    def highest(self) -> int:
        """The label of the last class."""
        return self.classes if self.zero_is_none else self.classes - 1


class Images(NamedTuple):
    """Errors in the order of the images, and counts of what has no effect."""

    errors: list[str]
    skips: Counter[str]


class _WrongError(Exception):
    """A file is not as expected; the message is the line to show."""


def check_images(
    images: Sequence[Listed], labels: LabelRange | None, title: str, turn: bool = True
) -> Images:
    """Decode every image and label map, as many at once as there are cores.

    Pillow decodes outside of Python's lock, so threads suffice; JPEG is decoded at an eighth of its
    size, which reads it to its end all the same.

    Args:
        images: what to look at.
        labels: which labels the maps may hold; None where any do.
        title: what is shown beside the progress.
        turn: whether the pipeline turns images as their EXIF data say.
    """
    found = Images([], Counter())
    look = partial(_look_at_all, labels=labels, turn=turn)
    batches = [images[start : start + _AT_ONCE] for start in range(0, len(images), _AT_ONCE)]
    with ThreadPoolExecutor(_cores()) as pool, Progress(title, len(images)) as progress:
        for errors, skips in pool.map(look, batches):
            found.errors.extend(errors)
            found.skips.update(skips)
            progress.update(min(progress.done + _AT_ONCE, len(images)))
    return found


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # only Linux tells which cores this process may use
        return os.cpu_count() or 1


def _look_at_all(images: Iterable[Listed], labels: LabelRange | None, turn: bool) -> Images:
    found = Images([], Counter())
    for image in images:
        try:
            size = _image_size(image, turn)
            if image.labels is not None and not _labelled(image.labels, image.path, size, labels):
                found.skips[NOTHING_LABELLED] += 1
        except _WrongError as wrong:
            found.errors.append(str(wrong))
    return found


def _image_size(image: Listed, turn: bool) -> tuple[int, int]:
    """Width and height of an image as the pipeline will see it."""
    _require(image.path, image.name)
    try:
        with Image.open(image.path) as opened:
            size = opened.size
            opened.draft("L", (max(1, size[0] // 8), max(1, size[1] // 8)))
            opened.load()
            if turn and _orientation(opened) in _TURNED:
                size = size[::-1]
    except _UNDECODABLE as error:
        raise _undecodable(image.path, image.name, error) from error
    if image.size is not None and size != image.size:
        raise _WrongError(
            f"{image.path}{image.name} is {_pixels(size)}, but its annotations are for "
            f"{_pixels(image.size)}; mend its width and height there, or get the image again"
        )
    return size


def _labelled(path: str, image: str, size: tuple[int, int], labels: LabelRange | None) -> bool:
    """Whether a label map has a pixel of a class; `size` is what the map has to have."""
    if not os.path.exists(path):
        raise _WrongError(f"{path} is missing, the label map of {image}")
    _require(path, "")
    try:
        with Image.open(path) as opened:
            opened.load()
            present = _labels_of(opened)
            found, mode = opened.size, opened.mode
    except _UNDECODABLE as error:
        raise _undecodable(path, "", error) from error
    if found != size:
        raise _WrongError(
            f"{path} is {_pixels(found)}, but its image {Path(image).name} is {_pixels(size)}"
        )
    if labels is None:
        return True
    if present is None:
        raise _WrongError(
            f"{path} is a picture of colours (mode {mode}); expected one channel of class numbers"
        )
    wrong = [one for one in present if not 0 <= one <= labels.highest and one != labels.ignored]
    if wrong:
        others = f" and {len(wrong) - 1} more that are out of range" if len(wrong) > 1 else ""
        none = "; 0 is no class" if labels.zero_is_none else ""
        raise _WrongError(
            f"{path} holds label {wrong[0]}{others}; expected 0 to {labels.highest} "
            f"({labels.classes} classes{none}), or {labels.ignored} where there is nothing to learn"
        )
    nothing = {labels.ignored, 0} if labels.zero_is_none else {labels.ignored}
    return not nothing.issuperset(present)


def _labels_of(image: Image.Image) -> list[int] | None:
    """The labels of a map, sorted; None where it has colours in place of labels."""
    if image.mode in {"L", "P"}:
        return [label for label, count in enumerate(image.histogram()) if count]
    return np.unique(np.asarray(image)).tolist() if image.mode in _ONE_CHANNEL else None


def _require(path: str, name: str) -> None:
    if not os.path.exists(path):
        raise _WrongError(f"{path}{name} is missing")
    if os.path.getsize(path) == 0:
        raise _WrongError(f"{path}{name} is empty (0 bytes); get it again")


def _orientation(image: Image.Image) -> int:
    if "exif" not in image.info:
        return 1
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except _UNDECODABLE:  # as for OpenCV: what cannot be read does not turn an image
        return 1


def _undecodable(path: str, name: str, error: BaseException) -> _WrongError:
    if isinstance(error, Image.UnidentifiedImageError):
        return _WrongError(f"{path}{name} is no image, or its header is corrupt; get it again")
    reason = " ".join(
        str(getattr(error, "strerror", None) or error or type(error).__name__).split()
    )
    return _WrongError(f"{path}{name} cannot be decoded ({reason}); get it again")


def _pixels(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]} pixels"

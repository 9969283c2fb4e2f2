"""Data sets of one folder per class, and the image files in them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from spikebench.task import MissingDataError
from spikebench_tasks.datasets import DatasetError
from spikebench_tasks.datasets.published import Published

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def require_classes(
    published: Published,
    folder: Path,
    num_classes: int,
    suffixes: Collection[str] = IMAGE_SUFFIXES,
    like: Path | None = None,
) -> list[Path]:
    """The class folders of a split, in the order of their names, which is that of the labels.

    Args:
        published: the data set.
        folder: that of the split.
        num_classes: number of classes there must be.
        suffixes: of the files that each must have one of, at any depth.
        like: the folder of another split, of the same classes.

    Raises:
        MissingDataError: the folder is not there, or is or holds one without such a file.
        DatasetError: there are more or fewer classes than `num_classes`, or others than in `like`.
    """
    published.require(folder)
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    if len(classes) != num_classes:
        raise DatasetError(
            f"{folder.absolute()} holds {len(classes)} class folders; expected {num_classes} "
            f"(data.num_classes); {published.remedy}"
        )
    for each in classes:
        if not any(path.suffix.lower() in suffixes for path in each.rglob("*")):
            raise MissingDataError(
                f"{published.title} is missing: {each.absolute()} holds none of "
                f"{', '.join(sorted(suffixes))}; {published.remedy}"
            )
        if like is not None and not (like / each.name).is_dir():
            raise DatasetError(
                f"{folder.absolute()} has a class {each.name!r} that {like.absolute()} has not; "
                "labels are numbered by the names, so that both must have the same"
            )
    return classes


def read_image(file: str | Path | BinaryIO, name: str | None = None) -> Image.Image:
    """An image file in RGB.

    Args:
        file: its path, or its content.
        name: what it is called where it cannot be read; None is its path.

    Raises:
        DatasetError: it cannot be read; the message names it.
    """
    try:
        with Image.open(file) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = str(error).split(" '")[0].split(" <")[0]  # without the file, which is said before
        raise DatasetError(
            f"{name or file} cannot be read: {reason}; get the file again, or leave it out"
        ) from error

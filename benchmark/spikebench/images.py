"""ImageNet images as classifiers take them, and images to count operations on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spikebench.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")


def imagenet_transform(size: int, **options: Any) -> Callable[[Image], Tensor]:
    """Return the preprocessing of ImageNet images: timm's.

    The shorter side of test images is resized to `size / crop_pct` with bicubic interpolation (256
    for 224), the centre is cropped, and pixels are normalised by ImageNet's mean and standard
    deviation.

    Args:
        size: pixels per side of the result.
        **options: those of timm's `create_transform`, such as `is_training=True` and augmentations;
            `crop_pct`, the share of the shorter side that the crop keeps, is 0.875 by default.

    Returns:
        A function of an RGB image that returns a float tensor `(3, size, size)`.
    """
    from timm.data import create_transform

    return create_transform(size, interpolation="bicubic", **{"crop_pct": 0.875, **options})


def sample_images(
    count: int, size: int, channels: int = 3, folder: Path | None = None
) -> Iterator[Tensor]:
    """Images preprocessed like those of ImageNet, or random events.

    Args:
        count: how many; fewer if the folder holds fewer.
        size: pixels per side.
        channels: of the input. With a number other than 3 there are random events, not photographs.
        folder: takes images below it in the order of their paths. Without one, random squares are
            cut out of scikit-learn's two photographs, always the same ones.

    Yields:
        Batches of one, `(1, channels, size, size)`.

    Raises:
        UserError: the folder holds no image, one cannot be read, or channels other than 3 were
            asked of it.
    """
    generator = torch.Generator().manual_seed(0)
    if folder is not None and channels != 3:
        raise UserError(f"images of {folder} have 3 channels; the model takes {channels}")
    if channels != 3:
        for _ in range(count):
            yield (torch.rand(1, channels, size, size, generator=generator) < 0.1).float()
        return
    transform = imagenet_transform(size, **({} if folder else {"crop_pct": 1.0}))
    for image in islice(_squares(generator) if folder is None else _read(folder), count):
        yield transform(image).unsqueeze(0)


def about_images(channels: int = 3, folder: Path | None = None) -> str:
    """What `sample_images` gives, in a few words."""
    if folder is not None:
        return f"images of {folder}"
    return "squares cut out of two photographs" if channels == 3 else "events at random"


def _squares(generator: torch.Generator) -> Iterator[Image]:
    """Squares of at least half the shorter side, at random places."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    while True:
        for image in photographs:
            share = 0.5 + 0.5 * torch.rand((), generator=generator).item()
            side = int(min(image.size) * share)
            top, left = (
                int(torch.randint(extent - side + 1, (), generator=generator))
                for extent in (image.height, image.width)
            )
            yield image.crop((left, top, left + side, top + side))


def _read(folder: Path) -> Iterator[Image]:
    from PIL import Image

    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise UserError(f"no image in {folder}; expected {', '.join(SUFFIXES)} below it")
    for path in paths:
        try:
            with Image.open(path) as opened:
                yield opened.convert("RGB")
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(f"{path} cannot be read as an image: {error}") from error

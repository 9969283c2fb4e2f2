"""Images to count operations on: those of a folder, or two photographs of scikit-learn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spikebench.errors import UserError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
"""Of ImageNet, as fractions of full brightness."""

_KEPT = 0.875  # the share of the shorter side that the centre crop keeps


def sample_images(
    count: int, size: int, channels: int = 3, folder: Path | None = None
) -> Iterator[Tensor]:
    """Images as classifiers take them: cut to a square and normalised as those of ImageNet.

    Args:
        count: how many; fewer where the folder holds fewer.
        size: pixels each side.
        channels: of the input; other than 3 there are no photographs of, but events at random.
        folder: images below it are taken in the order of their paths, their centres cut out;
            without one, squares are cut out of two photographs at random, always the same.

    Yields:
        Batches of one, `(1, channels, size, size)`.

    Raises:
        UserError: the folder holds no image, one cannot be read, or channels other than 3 were
            asked of it.
    """
    generator = torch.Generator().manual_seed(0)
    if folder is not None:
        if channels != 3:
            raise UserError(f"images of {folder} have 3 channels; the model takes {channels}")
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
        if not paths:
            raise UserError(f"no image in {folder}; expected {', '.join(SUFFIXES)} below it")
        yield from (_centre(path, size) for path in paths[:count])
    elif channels != 3:
        for _ in range(count):
            yield (torch.rand(1, channels, size, size, generator=generator) < 0.1).float()
    else:
        yield from _crops(count, size, generator)


def about_images(channels: int = 3, folder: Path | None = None) -> str:
    """What `sample_images` gives, in a few words."""
    if folder is not None:
        return f"images of {folder}"
    return "squares cut out of two photographs" if channels == 3 else "events at random"


def _crops(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    from sklearn.datasets import load_sample_images

    photographs = [_tensor(image) for image in load_sample_images().images]
    for number in range(count):
        image = photographs[number % len(photographs)]
        height, width = image.shape[-2:]
        side = int(min(height, width) * (0.5 + 0.5 * torch.rand((), generator=generator)))
        top, left = (
            int(torch.randint(extent - side + 1, (), generator=generator))
            for extent in (height, width)
        )
        yield _resized(image[..., top : top + side, left : left + side], size)


def _centre(path: Path, size: int) -> Tensor:
    from PIL import Image

    try:
        with Image.open(path) as opened:
            pixels = np.asarray(opened.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path} cannot be read as an image: {error}") from error
    image = _tensor(pixels)
    height, width = image.shape[-2:]
    side = max(1, round(_KEPT * min(height, width)))
    top, left = (height - side) // 2, (width - side) // 2
    return _resized(image[..., top : top + side, left : left + side], size)


def _tensor(pixels: np.ndarray) -> Tensor:
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).unsqueeze(0) / 255
    mean, deviation = (torch.tensor(value).view(1, 3, 1, 1) for value in (MEAN, DEVIATION))
    return (image - mean) / deviation


def _resized(image: Tensor, size: int) -> Tensor:
    return torch.nn.functional.interpolate(
        image, (size, size), mode="bicubic", antialias=True, align_corners=False
    )

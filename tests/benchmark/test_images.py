from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from spikebench.errors import UserError
from spikebench.images import about_images, imagenet_transform, sample_images

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def picture(path: Path, height: int, width: int) -> Image.Image:
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return image


def test_preprocessing_is_that_of_imagenet(tmp_path: Path):
    image = picture(tmp_path / "a.png", 80, 120)
    expected = v2.Compose(
        [
            v2.Resize(64, v2.InterpolationMode.BICUBIC),
            v2.CenterCrop(56),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, DEVIATION),
        ]
    )(image)
    torch.testing.assert_close(imagenet_transform(56)(image), expected)
    (found,) = sample_images(1, 56, folder=tmp_path)
    torch.testing.assert_close(found, expected[None])


def test_a_folder_gives_its_images_in_order(tmp_path: Path):
    for name in ("b/2.png", "a/1.png", "c.JPG"):
        picture(tmp_path / name, 40 + len(name), 40)
    (tmp_path / "notes.txt").write_text("no image")
    found = list(sample_images(10, 32, folder=tmp_path))
    assert [one.shape for one in found] == [(1, 3, 32, 32)] * 3
    first = imagenet_transform(32)(Image.open(tmp_path / "a" / "1.png"))
    assert torch.equal(found[0][0], first)
    assert len(list(sample_images(2, 32, folder=tmp_path))) == 2


def test_photographs_are_always_the_same_and_differ_from_each_other():
    first, again = list(sample_images(3, 32)), list(sample_images(3, 32))
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], first[2])
    assert first[0].shape == (1, 3, 32, 32)


def test_other_channels_are_events_at_random():
    (events,) = sample_images(1, 64, channels=2)
    assert events.shape == (1, 2, 64, 64)
    assert set(events.unique().tolist()) == {0.0, 1.0}
    assert "events" in about_images(2)


def test_what_cannot_be_had_is_an_error(tmp_path: Path):
    with pytest.raises(UserError, match=str(tmp_path)):
        next(sample_images(1, 32, folder=tmp_path))
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(UserError, match=r"torn\.png"):
        next(sample_images(1, 32, folder=tmp_path))
    with pytest.raises(UserError, match="2"):
        next(sample_images(1, 32, channels=2, folder=tmp_path))

from __future__ import annotations

import numpy as np
import pytest
from mmengine.registry import TRANSFORMS

from spikebench_tasks.openmmlab.transforms import BrightOnDark


def of(image: np.ndarray, **options: float | None) -> np.ndarray:
    return BrightOnDark(**options)({"img": image})["img"]


@pytest.fixture
def micrograph() -> np.ndarray:
    """Dim grey discs' worth of pixels on near-black."""
    image = np.full((40, 50, 3), 10, np.uint8)
    image[5:15, 5:15] = 30
    image[20:30, 20:30] = 20
    return image


def test_dark_is_black_and_bright_is_white(micrograph: np.ndarray):
    seen = of(micrograph)
    assert (seen.dtype, seen.shape) == (np.uint8, micrograph.shape)
    assert (seen[0, 0] == 0).all()
    assert (seen[5:15, 5:15] == 255).all()


def test_dim_pixels_are_lifted_by_gamma(micrograph: np.ndarray):
    assert of(micrograph, gamma=1.0)[25, 25, 0] == 128
    assert of(micrograph, gamma=0.5)[25, 25, 0] == round(255 * 0.5**0.5)


@pytest.mark.parametrize("bright", [40, 90, 200])
def test_without_a_gamma_dim_objects_are_as_bright_as_others(bright: int):
    """Discs of two brightnesses on black, under a few white pixels of dirt."""
    image = np.zeros((60, 60, 3), np.uint8)
    image[10:30, 10:30] = bright
    image[35:50, 35:50] = int(bright * 0.8)
    image[0, :12] = 255
    seen = of(image, gamma=None)
    assert (seen[12:28, 12:28] > 127).all()
    assert (seen[37:48, 37:48] > 127).all()
    assert (seen[52:, :30] < 10).all()


def test_stained_tissue_is_inverted(micrograph: np.ndarray):
    np.testing.assert_array_equal(of(255 - micrograph), of(micrograph))


def test_colours_stay_apart():
    image = np.full((40, 50, 3), 240, np.uint8)
    image[5:25, 5:25] = (200, 60, 120)  # purple, in BGR order
    blue, green, red = of(image)[10, 10]
    assert blue < red < green


def test_of_stained_tissue_what_lets_red_through_is_dark():
    image = np.full((40, 50, 3), 240, np.uint8)
    image[5:20, 5:20] = (160, 60, 110)  # haematoxylin
    image[25:35, 25:45] = (180, 90, 235)  # eosin
    seen = of(image, red=True)
    assert (seen[5:20, 5:20] == 255).all()
    assert (seen[25:35, 25:45] < 60).all()
    assert (of(image)[25:35, 25:45].max(-1) > 150).all()


def test_what_an_image_was_stays_in_blue_and_green(micrograph: np.ndarray):
    for bright in (1, 4):
        image = micrograph * np.uint8(bright)
        image[..., 0] //= 2
        seen = of(image, keep_colours=True)
        np.testing.assert_array_equal(seen[..., 2], of(image)[..., 2])
        expected = 255 * (image[..., :2] / 255.0) ** 0.5
        np.testing.assert_allclose(seen[..., :2], expected, atol=0.5)
    inverted = of(255 - image, keep_colours=True)
    np.testing.assert_array_equal(inverted, seen)


def test_a_glow_is_no_object():
    glow = np.linspace(0, 60, 200)[None, :, None].repeat(160, 0).repeat(3, 2).astype(np.uint8)
    glow[70:90, 20:40] += 60
    assert of(glow)[80, 190, 0] > 180
    seen = of(glow, background=41)
    assert seen[80, 190, 0] < 140
    assert (seen[75:85, 25:35] > 240).all()


def test_an_image_of_one_value_is_black():
    assert (of(np.full((8, 8, 3), 90, np.uint8)) == 0).all()
    assert (of(np.full((8, 8, 3), 90, np.uint8), gamma=None) == 0).all()


@pytest.mark.parametrize("scope", ["mmdet", "mmseg"])
def test_both_packages_find_it(scope: str):
    assert isinstance(TRANSFORMS.build({"type": "BrightOnDark", "_scope_": scope}), BrightOnDark)

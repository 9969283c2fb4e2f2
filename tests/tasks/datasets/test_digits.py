from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from spikebench_tasks.datasets.digits import CLASSES, load_glyphs


def rows(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


def test_no_glyph_of_the_test_split_is_in_training():
    train, test = (rows(load_glyphs(split).images) for split in ("train", "test"))
    assert len(train) == 1442
    assert len(test) == 355
    assert not train & test


def test_both_splits_together_are_all_glyphs_as_they_were():
    images, labels = load_digits(return_X_y=True)
    everything = {(image.tobytes(), label) for image, label in zip(images, labels, strict=True)}
    found = set()
    for split in ("train", "test"):
        glyphs = load_glyphs(split)
        assert glyphs.images.dtype == np.float32
        assert glyphs.images.min() == 0
        assert glyphs.images.max() == 1
        assert glyphs.images.shape[1:] == (8, 8)
        restored = (glyphs.images * 16).astype(np.float64).reshape(-1, 64)
        found |= {(g.tobytes(), label) for g, label in zip(restored, glyphs.labels, strict=True)}
    assert found == everything


def test_every_class_gives_a_fifth_to_testing():
    train, test = (np.bincount(load_glyphs(split).labels) for split in ("train", "test"))
    assert len(train) == len(test) == len(CLASSES)
    np.testing.assert_array_equal(test, (train + test) // 5)


@pytest.mark.parametrize("split", ["train", "test"])
def test_it_is_the_same_every_time(split: str):
    first = load_glyphs(split)
    load_glyphs.cache_clear()
    again = load_glyphs(split)
    assert first.images is not again.images
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.labels, again.labels)

"""Handwritten digits that come with scikit-learn: 1,797 glyphs of 8x8 pixels, 10 classes.

Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI (1998), CC BY 4.0, the
test part, as packaged by scikit-learn.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from spikebench_tasks.datasets import Split

CLASSES = tuple(str(digit) for digit in range(10))
_EVERY = 5


class Glyphs(NamedTuple):
    """Glyphs of one split: `images` (N, 8, 8) in [0, 1] float32, 1 is ink; `labels` (N,) int64."""

    images: np.ndarray
    labels: np.ndarray


@lru_cache
def load_glyphs(split: Split) -> Glyphs:
    """The glyphs of a split: of every class each fifth is for testing, the others for training.

    The glyphs lie in the order of their writers, so both splits see every writer.

    Example:
        >>> len(load_glyphs("train").labels), len(load_glyphs("test").labels)
        (1442, 355)
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    rank = np.zeros(len(labels), dtype=np.int64)
    for digit in range(len(CLASSES)):
        of_class = labels == digit
        rank[of_class] = np.arange(of_class.sum())
    test = rank % _EVERY == _EVERY - 1
    chosen = test if split == "test" else ~test
    scaled = (images[chosen] / 16).astype(np.float32).reshape(-1, 8, 8)
    return Glyphs(scaled, labels[chosen].astype(np.int64))

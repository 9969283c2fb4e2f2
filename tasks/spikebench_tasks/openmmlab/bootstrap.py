"""95 % intervals of a score by bootstrap: the images are drawn again, with replacement.

Images are what is drawn, since objects and pixels of one image are not independent of each other.
The intervals are percentile ones (B. Efron, "Bootstrap methods: another look at the jackknife",
Annals of Statistics 7, 1979) less the bias that the resamples show: precision is read at its best,
and where images repeat its best is better, so that the AP of resamples lies above that of the set,
at times as a whole.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from spikebench.task import ConfigError

LEVEL = 0.95
RESAMPLES = 1000
CHUNK = 64

Floats = NDArray[np.floating]


def bootstrap_intervals(
    score: Callable[[NDArray[np.int32]], dict[str, Floats]],
    images: int,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """The 95 % intervals of some figures, each from 0 to 1, of a set of images.

    Args:
        score: called with how often each image counts, of shape `(images, B)`, a column for each
            of B resamples; returns each figure by name, of shape `(B,)`, nan where a resample has
            nothing to work it out from.
        images: how many there are; of fewer than two nothing can be told.
        resamples: how often to draw as many images as there are; 0 gives no interval.
        seed: of the generator that draws; the same seed gives the same intervals.

    Returns:
        Low and high end by name. Resamples in which a figure is not defined do not count; one that
        is defined in none has no interval.

    Raises:
        ConfigError: `resamples` is negative.

    Example:
        >>> right = np.array([1.0] * 80 + [0.0] * 20)
        >>> found = bootstrap_intervals(lambda counts: {"accuracy": right @ counts / 100}, 100)
        >>> [round(end, 2) for end in found["accuracy"]]
        [0.72, 0.87]
    """
    if checked_resamples(resamples) == 0 or images < 2:
        return {}
    generator = np.random.default_rng(seed)
    even = np.full(images, 1 / images)
    chunks = []
    for start in range(0, resamples, CHUNK):
        drawn = generator.multinomial(images, even, min(CHUNK, resamples - start))
        chunks.append(score(np.ascontiguousarray(drawn.T, dtype=np.int32)))
    figures = score(np.ones((images, 1), np.int32))
    intervals = {
        name: _interval(figure.item(), np.concatenate([chunk[name] for chunk in chunks]))
        for name, figure in figures.items()
    }
    return {name: ends for name, ends in intervals.items() if ends is not None}


def checked_resamples(resamples: int) -> int:
    """The number itself.

    Raises:
        ConfigError: it is negative.
    """
    if resamples < 0:
        raise ConfigError(f"resamples is {resamples}; expected 0, for no intervals, or more")
    return resamples


def mean_of_known(values: Floats) -> Floats:
    """The mean over the first axis of what is not nan; nan where all is."""
    known = ~np.isnan(values)
    count = known.sum(0)
    return np.where(count > 0, np.where(known, values, 0).sum(0) / np.maximum(count, 1), np.nan)


def _interval(figure: float, resampled: Floats) -> tuple[float, float] | None:
    known = resampled[~np.isnan(resampled)]
    if not len(known):
        return None
    tail = (1 - LEVEL) / 2
    bias = known.mean() - figure
    low, high = np.clip(np.quantile(known, (tail, 1 - tail)) - bias, 0, 1).tolist()
    return low, high

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from spikebench.task import ConfigError
from spikebench_tasks.openmmlab import bootstrap
from spikebench_tasks.openmmlab.bootstrap import bootstrap_intervals, mean_of_known

RNG = np.random.default_rng(7)
RIGHT = (RNG.random(400) < 0.7).astype(float)


def mean_of(values: np.ndarray):
    return lambda counts: {"mean": values @ counts / counts.sum(0)}


def test_it_is_the_normal_interval_of_a_mean_of_many():
    low, high = bootstrap_intervals(mean_of(RIGHT), len(RIGHT), resamples=20_000)["mean"]
    share = RIGHT.mean()
    reach = 1.96 * math.sqrt(share * (1 - share) / len(RIGHT))
    assert (low, high) == pytest.approx((share - reach, share + reach), abs=0.002)


def test_every_resample_draws_as_many_images_as_there_are():
    seen: list[np.ndarray] = []

    def score(counts):
        seen.append(counts)
        return {}

    bootstrap_intervals(score, images=9, resamples=150)
    *drawn, once = seen
    assert (once == 1).all()
    assert once.shape == (9, 1)
    counts = np.concatenate(drawn, axis=1)
    assert counts.shape == (9, 150)
    assert (counts.sum(0) == 9).all()
    assert abs(counts.mean(1) - 1).max() < 0.3
    # drawn with replacement: an image is left out with (8/9)^9
    assert (counts == 0).mean() == pytest.approx((8 / 9) ** 9, abs=0.04)


def test_the_same_seed_gives_the_same_interval(monkeypatch):
    first = bootstrap_intervals(mean_of(RIGHT), len(RIGHT))
    assert bootstrap_intervals(mean_of(RIGHT), len(RIGHT)) == first
    assert bootstrap_intervals(mean_of(RIGHT), len(RIGHT), seed=1) != first
    monkeypatch.setattr(bootstrap, "CHUNK", 7)
    assert bootstrap_intervals(mean_of(RIGHT), len(RIGHT)) == first


def test_what_resamples_are_off_by_on_average_is_taken_back():
    plain = bootstrap_intervals(mean_of(RIGHT), len(RIGHT))["mean"]

    def biased(counts):
        off = 0.0 if (counts == 1).all() else 0.2
        return {"mean": RIGHT @ counts / counts.sum(0) + off}

    assert bootstrap_intervals(biased, len(RIGHT))["mean"] == pytest.approx(plain, abs=1e-12)


def test_an_interval_ends_where_a_fraction_does():
    almost = np.ones(40)
    almost[0] = 0.9
    low, high = bootstrap_intervals(mean_of(almost), len(almost))["mean"]
    assert 0.98 < low < almost.mean() < high <= 1
    assert bootstrap_intervals(mean_of(np.ones(5)), 5)["mean"] == (1, 1)
    assert bootstrap_intervals(mean_of(np.zeros(5)), 5)["mean"] == (0, 0)


def test_resamples_that_do_not_define_a_figure_do_not_count():
    def with_gaps(counts):
        first = counts[0] > 0
        return {"all": np.where(first, 0.5, np.nan), "none": np.full(counts.shape[1], np.nan)}

    assert bootstrap_intervals(with_gaps, 3) == {"all": (0.5, 0.5)}


def test_one_image_and_no_resamples_give_no_interval():
    assert bootstrap_intervals(mean_of(np.ones(1)), 1) == {}
    assert bootstrap_intervals(mean_of(RIGHT), len(RIGHT), resamples=0) == {}


def test_a_negative_number_of_resamples_is_refused():
    message = "resamples is -3; expected 0, for no intervals, or more"
    with pytest.raises(ConfigError, match=re.escape(message)):
        bootstrap_intervals(mean_of(RIGHT), len(RIGHT), resamples=-3)


def test_the_mean_of_what_is_known():
    nan = np.nan
    values = np.array([[1.0, nan, nan], [2.0, 4.0, nan]])
    assert mean_of_known(values) == pytest.approx([1.5, 4.0, nan], nan_ok=True)

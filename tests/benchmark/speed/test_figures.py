from __future__ import annotations

import random

import numpy
import pytest

from spikebench.speed import figures
from tests.benchmark.speed.records import MIB, speed_record, timing


@pytest.mark.parametrize("share", [0.0, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("count", [1, 2, 7, 20])
def test_percentiles_are_those_of_numpy(count: int, share: float):
    values = [random.Random(count).random() for _ in range(count)]
    assert figures.percentile(values, share) == pytest.approx(numpy.quantile(values, share))


def test_images_per_second_weighs_every_batch_with_its_time():
    measured = timing([[0.1, 0.3], [0.4]])
    # 3 batches of 2 images in 0.8 s
    assert figures.images_per_second(speed_record(measured), measured) == pytest.approx(7.5)


def test_ratios_are_formed_within_each_round():
    # the machine gets ten times slower: of the whole, one is 5 times as fast; in each round, twice
    slow, fast = timing([[2.0], [20.0]]), timing([[1.0], [10.0]])
    assert figures.speedups(fast, slow) == (2.0, 2.0)
    assert figures.speedups(slow, fast) == (0.5, 0.5)


def test_a_round_counts_by_the_median_of_its_batches():
    hiccup = timing([[1.0, 9.0, 1.0], [1.0, 1.0, 1.0]])
    assert figures.speedups(hiccup, timing([[2.0], [3.0]])) == (2.0, 3.0)


class TestBaseline:
    def test_is_the_first_contender_where_none_was_named(self):
        first, second = timing([[2.0]], neurons="a"), timing([[1.0]], neurons="b")
        record = speed_record(first, second)
        assert figures.baseline(record, "inference") == first

    def test_is_the_fastest_of_the_named_in_the_first_precision(self):
        rivals = [
            timing([[9.0]], neurons="reference"),
            timing([[3.0]], neurons="peer-torch"),
            timing([[1.0]], neurons="peer-torch", precision="bfloat16"),
            timing([[2.0]], neurons="peer-triton"),
            timing([[0.5]], neurons="compiled"),
            timing([[0.1]], neurons="peer-torch", mode="train"),
        ]
        record = speed_record(*rivals, against="peer")
        assert figures.baseline(record, "inference") == rivals[3]
        assert figures.baseline(record, "training") == rivals[5]

    def test_that_failed_leaves_no_ratio(self):
        failed = timing([], neurons="peer", error="out of memory")
        record = speed_record(failed, timing([[1.0]]), against="peer")
        assert figures.baseline(record, "inference") is None
        assert figures.baseline(record, "LIF inference") is None


class TestFloor:
    def test_is_the_dense_macs_at_the_rate_of_the_product(self):
        # 1000 MACs, 4 steps, 2 images: 8 products of 10 x 10 matrices, 1000 MACs each
        product = timing([[0.5], [1.0]], subject="matmul")
        model = timing([[6.0], [8.0]])
        record = speed_record(model, product)
        assert figures.floor(record, "float32") == [4.0, 8.0]
        assert figures.over_floor(record, model) == (1.5, 1.0)

    def test_is_of_the_same_precision(self):
        products = [
            timing([[0.5]], subject="matmul"),
            timing([[0.25]], subject="matmul", precision="bfloat16"),
        ]
        half = timing([[4.0]], precision="bfloat16")
        record = speed_record(half, *products)
        assert figures.over_floor(record, half) == (2.0,)

    def test_is_missing_where_it_was_not_measured(self):
        model, training = timing([[6.0]]), timing([[6.0]], mode="train")
        failed = timing([], subject="matmul", error="no")
        for product in ([], [failed]):
            assert figures.over_floor(speed_record(model, *product), model) is None
        measured = speed_record(training, timing([[1.0]], subject="matmul"))
        assert figures.over_floor(measured, training) is None


def test_memory_is_the_largest_of_all_rounds():
    measured = timing([[1.0], [1.0]])
    assert figures.peak_memory(measured) == 100 * MIB
    assert figures.working_memory(measured) == 40 * MIB
    unknown = measured.model_copy(update={"model_memory_bytes": None})
    assert figures.working_memory(unknown) is None

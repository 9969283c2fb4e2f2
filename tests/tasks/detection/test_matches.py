"""Weighted average precision against pycocotools, on images that are there so many times."""

from __future__ import annotations

import contextlib
import copy
import io

import numpy as np
import pytest

from spikebench_tasks.detection import registered
from tests.tasks.detection.coco_cases import (
    CROWDED,
    EMPTY,
    STATS,
    UNFOUND,
    Dataset,
    Detections,
    pycocotools_evaluation,
    pycocotools_stats,
    random_case,
    repeated,
)

from faster_coco_eval import COCO as FasterCOCO  # isort: skip
from spikebench_tasks.detection.matches import Matches  # isort: skip
from spikebench_tasks.detection.metric import evaluate, summarized  # isort: skip

assert registered
KINDS = ("bbox", "segm")


def matches(dataset: Dataset, found: Detections, kind: str) -> Matches:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = FasterCOCO(copy.deepcopy(dataset))
    categories = [one["id"] for one in dataset["categories"]]
    images = [one["id"] for one in dataset["images"]]
    return Matches(evaluate(truth, found, kind, categories, images))


def weighted(found: Matches, counts: np.ndarray) -> list[dict[str, float]]:
    """The statistics for each column of `counts`, less what is not defined."""
    thresholds = np.linspace(0.5, 0.95, 10)
    stats = summarized(found.average_precision(counts), thresholds)
    return [
        {name: float(values[n]) for name, values in stats.items() if not np.isnan(values[n])}
        for n in range(counts.shape[1])
    ]


def agrees(mine: dict[str, float], theirs: dict[str, float]) -> bool:
    return mine == pytest.approx(theirs, abs=1e-12, rel=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_every_image_once_is_pycocotools(kind: str, ties: bool, seed: int):
    case = random_case(seed, ties=ties)
    expected = pycocotools_stats(*case, kind)
    assert set(expected) == set(STATS)
    assert 0.01 < expected["map"] < 0.9
    (stats,) = weighted(matches(*case, kind), np.ones((12, 1), int))
    assert agrees(stats, expected)


def test_the_cases_hold_what_there_is_a_rule_for():
    dataset, found = random_case(0)
    objects = dataset["annotations"]
    assert any(one["iscrowd"] for one in objects)
    with_objects = {one["image_id"] for one in objects}
    with_detections = {one["image_id"] for one in found}
    assert with_detections - with_objects == {EMPTY}
    assert with_objects - with_detections == {UNFOUND}
    in_one = [one for one in found if (one["image_id"], one["category_id"]) == (CROWDED, 1)]
    assert len(in_one) > 100
    assert {one["category_id"] for one in found} > {one["category_id"] for one in objects}
    areas = [one["area"] for one in objects]
    assert min(areas) < 32**2 < sorted(areas)[len(areas) // 2] < 96**2 < max(areas)


@pytest.mark.parametrize("kind", KINDS)
def test_of_each_class_size_and_threshold(kind: str):
    case = random_case(5)
    mine = matches(*case, kind).average_precision(np.ones((12, 1), int))[..., 0]
    precision = pycocotools_evaluation(*case, kind).eval["precision"][..., -1]  # (T, R, K, A)
    theirs = np.where(precision < 0, np.nan, precision).mean(1).transpose(2, 1, 0)
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-12)
    assert np.isnan(mine[:, -1]).all()
    assert np.unique(mine[:, :3]).size > 30


@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_is_an_image_so_many_times(kind: str):
    case = random_case(6)
    counts = np.random.default_rng(0).multinomial(12, [1 / 12] * 12, 8).T
    assert {0, 1, 2} <= set(counts.flatten().tolist())
    for column, stats in zip(counts.T, weighted(matches(*case, kind), counts), strict=True):
        assert agrees(stats, pycocotools_stats(*repeated(*case, column), kind))


def test_images_of_weight_zero_are_not_there():
    dataset, found = random_case(7)
    only = [0, 4, 5]
    counts = np.array([int(image in only) for image in range(12)])
    some = {**dataset, "images": [dataset["images"][image] for image in only]}
    some["annotations"] = [one for one in dataset["annotations"] if one["image_id"] in only]
    theirs = pycocotools_stats(some, [one for one in found if one["image_id"] in only], "bbox")
    (stats,) = weighted(matches(dataset, found, "bbox"), counts[:, None])
    assert agrees(stats, theirs)
    nothing = weighted(matches(dataset, found, "bbox"), np.zeros((12, 1), int))
    assert nothing == [{}]


def test_of_many_objects_in_one_place_the_nearest_is_taken():
    """The last of those that are as near; one that does not count only where no other is left."""
    dataset, _ = random_case(0, images=8)
    rng = np.random.default_rng(0)
    dataset["annotations"], found = [], []
    for image in range(8):
        for _ in range(6):
            place, size = rng.integers(40, 44, 2), rng.integers(56, 62, 2)
            box = [float(value) for value in (*place, *size)]
            number = len(dataset["annotations"]) + 1
            about = {"image_id": image, "category_id": 1, "bbox": box}
            area = float(rng.choice([900, 2000, 9500]))
            dataset["annotations"].append({"id": number, "area": area, "iscrowd": 0, **about})
            moved = [value + float(rng.integers(-3, 4)) for value in box]
            found.append({**about, "score": float(rng.random()), "bbox": moved})
    (stats,) = weighted(matches(dataset, found, "bbox"), np.ones((8, 1), int))
    assert agrees(stats, pycocotools_stats(dataset, found, "bbox"))
    assert len(set(stats.values())) == len(STATS)


def test_a_crowd_swallows_every_detection_of_it():
    dataset, _ = random_case(0, images=2)
    box = [0.0, 0.0, 120.0, 120.0]
    crowd = {**dataset["annotations"][0], "bbox": box, "iscrowd": 1, "area": 120.0**2}
    one = {**crowd, "id": 2, "bbox": [150.0, 100.0, 50.0, 50.0], "iscrowd": 0, "area": 2500.0}
    inside = [[10.0 * n, 10.0 * n, 40.0, 40.0] for n in range(5)]
    found = [
        {"image_id": 0, "category_id": one["category_id"], "score": 0.9 - n / 10, "bbox": where}
        for n, where in enumerate([*inside, one["bbox"]])
    ]
    dataset["annotations"] = [crowd, one]
    (stats,) = weighted(matches(dataset, found, "bbox"), np.ones((2, 1), int))
    assert stats["map"] == pytest.approx(1)


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_detection_it_is_zero_where_there_are_objects(kind: str):
    dataset, _ = random_case(8)
    (stats,) = weighted(matches(dataset, [], kind), np.ones((12, 1), int))
    assert stats == dict.fromkeys(STATS, 0.0)

"""COCO's average precision against pycocotools, on detections of digit scenes."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import METRICS
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from spikebench.task import ConfigError
from spikebench_tasks.datasets.digits import CLASSES
from spikebench_tasks.detection import registered
from tests.tasks.detection.coco_cases import pycocotools_stats, random_case, repeated

from faster_coco_eval import COCO as FasterCOCO  # isort: skip
from spikebench_tasks.detection.metric import (
    CocoAP,
    average_precision,
    evaluate,
    precision_intervals,
)  # isort: skip

assert registered
STATS = ("map", "map50", "map75", "map_small", "map_medium", "map_large")
CATEGORIES = list(range(1, 11))
IMAGES = list(range(30))

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def annotations(scenes: Path) -> Path:
    return scenes / "annotations" / "instances_test.json"


@pytest.fixture(scope="module")
def truth(annotations: Path) -> FasterCOCO:
    return FasterCOCO(str(annotations))


@pytest.fixture(scope="module")
def detections(annotations: Path) -> list[dict[str, Any]]:
    """Some digits found well, some badly, twice, or as another digit, and some made up."""
    rng = np.random.default_rng(0)
    found = []
    for one in json.loads(annotations.read_text())["annotations"]:
        if one["image_id"] not in IMAGES:
            continue
        mask = coco_mask.decode(one["segmentation"])
        for _ in range(rng.integers(0, 4)):
            shift = rng.integers(-6, 7, 2)
            moved = np.roll(mask, shift, (0, 1))
            rows, columns = np.nonzero(moved.any(1))[0], np.nonzero(moved.any(0))[0]
            category = one["category_id"] if rng.random() < 0.8 else int(rng.integers(1, 11))
            box = [columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]
            box = [float(value) for value in np.array(box) + rng.uniform(0, 2, 4)]
            found.append(detection(one["image_id"], category, rng.random(), box, moved))
    for _ in range(40):
        left, top, width, height = (int(value) for value in rng.integers(4, 60, 4))
        mask = np.zeros((128, 128), np.uint8)
        mask[top : top + height, left : left + width] = 1
        box = [float(left), float(top), float(width), float(height)]
        image, category = int(rng.choice(IMAGES)), int(rng.integers(1, 11))
        found.append(detection(image, category, rng.random(), box, mask))
    return found


def detection(
    image: int, category: int, score: float, box: list[float], mask: np.ndarray
) -> dict[str, Any]:
    encoded = coco_mask.encode(np.asfortranarray(mask))
    return {
        "image_id": image,
        "category_id": category,
        "score": float(score),
        "bbox": box,
        "segmentation": {"size": encoded["size"], "counts": encoded["counts"].decode()},
    }


def reference(
    annotations: Path,
    detections: list[dict[str, Any]],
    kind: str,
    images: list[int],
    categories=None,
) -> dict[str, float]:
    """pycocotools, told as little as possible."""
    key = "bbox" if kind == "bbox" else "segmentation"
    plain = [
        {name: one[name] for name in ("image_id", "category_id", "score", key)}
        for one in detections
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        api = COCO(str(annotations))
        evaluation = COCOeval(api, api.loadRes(plain), kind)
        evaluation.params.imgIds = images
        evaluation.params.catIds = categories or CATEGORIES
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    values = zip(STATS, evaluation.stats[:6], strict=True)
    return {name: float(value) for name, value in values if value >= 0}


def scored(
    truth: FasterCOCO, detections: list, kind: str, categories: list[int], images: list[int]
) -> dict[str, float]:
    return average_precision(evaluate(truth, detections, kind, categories, images))


def only(detections: list[dict[str, Any]], images: list[int]) -> list[dict[str, Any]]:
    return [one for one in detections if one["image_id"] in images]


@pytest.mark.parametrize("kind", ["bbox", "segm"])
class TestAveragePrecision:
    @pytest.mark.parametrize("images", [IMAGES, IMAGES[:7], [3], IMAGES[::3]])
    def test_it_is_that_of_pycocotools(self, annotations, truth, detections, kind, images):
        mine = only(detections, images)
        scores = scored(truth, mine, kind, CATEGORIES, images)
        expected = reference(annotations, mine, kind, images)
        assert scores.keys() == expected.keys()
        assert scores == pytest.approx(expected, abs=1e-9, rel=0)
        assert 0.01 < scores["map"] < scores["map50"] < 0.99

    def test_images_without_a_detection_count(self, annotations, truth, detections, kind):
        mine = only(detections, IMAGES[:5])
        scores = scored(truth, mine, kind, CATEGORIES, IMAGES)
        assert scores == pytest.approx(reference(annotations, mine, kind, IMAGES), abs=1e-9)
        fewer = scored(truth, mine, kind, CATEGORIES, IMAGES[:5])
        assert scores["map"] < fewer["map"]

    def test_only_the_categories_asked_for_count(self, annotations, truth, detections, kind):
        some = [1, 4]
        mine = [one for one in detections if one["category_id"] in some]
        scores = scored(truth, mine, kind, some, IMAGES)
        assert scores == pytest.approx(reference(annotations, mine, kind, IMAGES, some), abs=1e-9)

    def test_only_the_best_hundred_of_an_image_count(self, annotations, truth, detections, kind):
        worse = [{**one, "image_id": 0, "score": one["score"] / 2} for one in detections]
        mine = [*only(detections, [0]), *worse[:150]]
        scores = scored(truth, mine, kind, CATEGORIES, [0])
        assert scores == pytest.approx(reference(annotations, mine, kind, [0]), abs=1e-9)

    def test_sizes_that_no_object_has_are_left_out(self, annotations, truth, detections, kind):
        scores = scored(truth, detections, kind, CATEGORIES, IMAGES)
        assert set(scores) == {"map", "map50", "map75", "map_small", "map_medium"}

    def test_without_a_detection_it_is_zero(self, truth, kind):
        scores = scored(truth, [], kind, CATEGORIES, IMAGES)
        assert scores == dict.fromkeys(("map", "map50", "map75", "map_small", "map_medium"), 0.0)

    def test_the_truth_itself_scores_one(self, annotations, truth, kind):
        dataset = json.loads(annotations.read_text())
        perfect = [{**one, "score": 0.9} for one in dataset["annotations"]]
        images = [one["id"] for one in dataset["images"]]
        scores = scored(truth, perfect, kind, CATEGORIES, images)
        assert scores == pytest.approx(dict.fromkeys(scores, 1.0))

    def test_scoring_leaves_the_truth_alone(self, truth, detections, kind):
        first = scored(truth, detections, kind, CATEGORIES, IMAGES)
        scored(truth, [], kind, CATEGORIES, IMAGES)
        assert scored(truth, detections, kind, CATEGORIES, IMAGES) == first


def test_a_mask_is_sized_by_itself_and_not_by_its_box(annotations, truth):
    """A digit is small where its box is not; pycocotools sees the mask only."""
    dataset = json.loads(annotations.read_text())
    perfect = [{**one, "score": 0.9, "bbox": [0, 0, 128, 128]} for one in dataset["annotations"]]
    images = [one["id"] for one in dataset["images"]]
    scores = scored(truth, perfect, "segm", CATEGORIES, images)
    assert scores["map_small"] == pytest.approx(1)
    assert scores == pytest.approx(reference(annotations, perfect, "segm", images), abs=1e-9)


class TestCocoAP:
    def samples(self, detections: list[dict[str, Any]], images: list[int]) -> list[dict[str, Any]]:
        samples = []
        for image in images:
            mine = only(detections, [image])
            boxes = torch.tensor([one["bbox"] for one in mine], dtype=torch.float64).reshape(-1, 4)
            corners = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)
            masks = [coco_mask.decode(one["segmentation"]) for one in mine]
            samples.append(
                {
                    "img_id": image,
                    "ori_shape": (128, 128),
                    "pred_instances": {
                        "bboxes": corners,
                        "scores": torch.tensor([one["score"] for one in mine]).double(),
                        "labels": torch.tensor([one["category_id"] - 1 for one in mine]).long(),
                        "masks": torch.tensor(np.array(masks).reshape(-1, 128, 128)).bool(),
                    },
                }
            )
        return samples

    def metric(
        self, annotations: Path, detections: list, images: list[int], **options
    ) -> tuple[CocoAP, dict[str, float]]:
        metric = CocoAP(**options)
        metric.dataset_meta = {"classes": CLASSES, "ann_file": (str(annotations),)}
        for sample in self.samples(detections, images):
            metric.process({}, [sample])
        return metric, metric.evaluate(len(images))

    def scores(
        self, annotations: Path, detections: list, images: list[int], **options
    ) -> dict[str, float]:
        return self.metric(annotations, detections, images, resamples=0, **options)[1]

    def test_boxes_and_masks_are_scored_at_full_precision(self, annotations, detections):
        float32 = [{**one, "score": float(np.float32(one["score"]))} for one in detections]
        scores = self.scores(annotations, float32, IMAGES)
        expected = {
            f"{name}_{stat}": value
            for name, kind in (("box", "bbox"), ("mask", "segm"))
            for stat, value in reference(annotations, float32, kind, IMAGES).items()
        }
        assert scores == pytest.approx(expected, abs=1e-9, rel=0)
        assert all(type(value) is float for value in scores.values())
        assert all(round(scores[name], 3) != scores[name] for name in ("box_map", "mask_map"))

    def test_only_images_handed_in_are_scored(self, annotations, detections):
        images = IMAGES[:6]
        scores = self.scores(annotations, detections, images, metric="bbox")
        expected = reference(annotations, only(detections, images), "bbox", images)
        assert scores == pytest.approx({f"box_{k}": v for k, v in expected.items()}, abs=1e-9)

    def test_without_a_detection_it_is_zero(self, annotations):
        scores = self.scores(annotations, [], IMAGES)
        assert len(scores) == 10
        assert set(scores.values()) == {0.0}

    def test_annotations_may_be_named(self, annotations, detections):
        named = CocoAP(ann_file=str(annotations), metric="segm", resamples=0)
        named.dataset_meta = {"classes": CLASSES}
        for sample in self.samples(detections, IMAGES):
            named.process({}, [sample])
        assert named.evaluate(len(IMAGES)) == self.scores(
            annotations, detections, IMAGES, metric=["segm"]
        )

    def test_every_figure_is_a_metric_of_the_task(self, annotations, detections):
        from spikebench_tasks.detection.task import DetectionTask

        scores = self.scores(annotations, detections, IMAGES)
        assert scores.keys() <= DetectionTask.metrics.keys()
        specs = DetectionTask.metrics.values()
        assert all(spec.unit == "fraction" and spec.higher_is_better for spec in specs)
        assert not any(spec.proportion for spec in specs)

    def test_per_class_it_is_that_of_pycocotools_on_one_class(self, annotations, detections):
        images = IMAGES[:4]
        mine = only(detections, images)
        metric, scores = self.metric(annotations, mine, images, resamples=0)
        present = {
            one["category_id"]
            for one in json.loads(annotations.read_text())["annotations"]
            if one["image_id"] in images
        }
        assert 0 < len(present) < len(CATEGORIES)
        assert set(metric.per_class) == {"box_map", "box_map50", "mask_map", "mask_map50"}
        for name, kind in (("box", "bbox"), ("mask", "segm")):
            alone = {
                CLASSES[category - 1]: reference(annotations, mine, kind, images, [category])
                for category in present
            }
            for stat in ("map", "map50"):
                expected = {label: stats[stat] for label, stats in alone.items()}
                found = metric.per_class[f"{name}_{stat}"]
                assert found == pytest.approx(expected, abs=1e-6)  # scores are float32 here
                assert np.mean(list(found.values())) == pytest.approx(scores[f"{name}_{stat}"])

    def test_intervals_are_those_of_images_that_come_so_many_times(self, tmp_path):
        dataset, found = random_case(2)
        file = tmp_path / "annotations.json"
        file.write_text(json.dumps(dataset))
        truth, images = FasterCOCO(str(file)), list(range(len(dataset["images"])))
        evaluation = evaluate(truth, found, "bbox", [1, 2, 3, 4], images)
        mine = precision_intervals(evaluation, resamples=40)
        point = pycocotools_stats(dataset, found, "bbox")
        drawn = np.random.default_rng(0).multinomial(12, [1 / 12] * 12, 40)
        resampled = [
            pycocotools_stats(*repeated(dataset, found, counts), "bbox") for counts in drawn
        ]
        assert set(mine) == set(point)
        for stat, ends in mine.items():
            values = np.array([stats[stat] for stats in resampled if stat in stats])
            low, high = np.quantile(values, (0.025, 0.975)) - (values.mean() - point[stat])
            assert ends == pytest.approx((max(low, 0), min(high, 1)), abs=1e-9)

    def test_every_figure_has_an_interval_around_it(self, annotations, detections):
        metric, scores = self.metric(annotations, detections, IMAGES, resamples=200)
        assert metric.intervals.keys() == scores.keys()
        for name, value in scores.items():
            low, high = metric.intervals[name]
            assert 0 <= low < value < high <= 1
            assert type(low) is type(high) is float
        again, _ = self.metric(annotations, detections, IMAGES, resamples=200)
        assert again.intervals == metric.intervals
        fewer, _ = self.metric(annotations, detections, IMAGES[:8], resamples=200)
        width = {one: np.diff(one.intervals["box_map"]).item() for one in (metric, fewer)}
        assert width[metric] < width[fewer]

    def test_no_resamples_and_one_image_have_no_interval(self, annotations, detections):
        assert self.metric(annotations, detections, IMAGES, resamples=0)[0].intervals == {}
        assert self.metric(annotations, detections, IMAGES[:1])[0].intervals == {}

    def test_what_was_scored_before_is_forgotten(self, annotations, detections):
        metric, _ = self.metric(annotations, detections, IMAGES, resamples=20)
        for sample in self.samples([], IMAGES[:1]):
            metric.process({}, [sample])
        metric.evaluate(1)
        assert metric.intervals == {}
        assert set(metric.per_class["box_map"].values()) == {0.0}


class TestInsteadOfCocoMetric:
    @pytest.mark.parametrize("stock", ["coco_detection", "coco_instance", "cityscapes_detection"])
    def test_the_type_alone_is_overridden(self, tmp_path: Path, stock: str):
        file = tmp_path / "config.py"
        file.write_text(
            f"_base_ = ['mmdet::_base_/datasets/{stock}.py']\nval_evaluator = dict(type='CocoAP')\n"
        )
        described = Config.fromfile(file).val_evaluator
        assert {"ann_file", "metric"} < described.keys()
        metric = METRICS.build(described)
        assert type(metric) is CocoAP
        assert metric.ann_file == described.ann_file
        kinds = described.metric
        assert metric.metrics == ([kinds] if isinstance(kinds, str) else kinds)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"metric": "proposal"}, "'proposal'"),
            ({"metric": ["bbox", "sgem"]}, "'sgem'"),
            ({"format_only": True}, "format_only=True"),
            ({"resamples": -1}, "resamples is -1"),
        ],
    )
    def test_what_it_does_not_do_is_refused(self, options: dict[str, Any], message: str):
        with pytest.raises(ConfigError, match=message):
            CocoAP(**options)

    def test_masks_that_no_model_predicts_are_asked_for(self, annotations: Path):
        metric = CocoAP(ann_file=str(annotations), metric=["bbox", "segm"])
        metric.dataset_meta = {"classes": CLASSES}
        boxes = {"bboxes": np.zeros((0, 4)), "scores": np.zeros(0), "labels": np.zeros(0, int)}
        metric._coco_api = metric._annotations()
        with pytest.raises(ConfigError, match="'segm'"):
            metric.compute_metrics([({}, {"img_id": 1, **boxes})])

    def test_annotations_that_nobody_names_are_asked_for(self):
        metric = CocoAP()
        metric.dataset_meta = {"classes": CLASSES}
        with pytest.raises(ConfigError, match="ann_file"):
            metric.process({}, [{}])

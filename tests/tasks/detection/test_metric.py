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
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tasks.datasets.digits import CLASSES
from tasks.detection import registered

from faster_coco_eval import COCO as FasterCOCO  # isort: skip
from tasks.detection.metric import CocoAP, average_precision  # isort: skip

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


def only(detections: list[dict[str, Any]], images: list[int]) -> list[dict[str, Any]]:
    return [one for one in detections if one["image_id"] in images]


@pytest.mark.parametrize("kind", ["bbox", "segm"])
class TestAveragePrecision:
    @pytest.mark.parametrize("images", [IMAGES, IMAGES[:7], [3], IMAGES[::3]])
    def test_it_is_that_of_pycocotools(self, annotations, truth, detections, kind, images):
        mine = only(detections, images)
        scores = average_precision(truth, mine, kind, CATEGORIES, images)
        expected = reference(annotations, mine, kind, images)
        assert scores.keys() == expected.keys()
        assert scores == pytest.approx(expected, abs=1e-9, rel=0)
        assert 0.01 < scores["map"] < scores["map50"] < 0.99

    def test_images_without_a_detection_count(self, annotations, truth, detections, kind):
        mine = only(detections, IMAGES[:5])
        scores = average_precision(truth, mine, kind, CATEGORIES, IMAGES)
        assert scores == pytest.approx(reference(annotations, mine, kind, IMAGES), abs=1e-9)
        fewer = average_precision(truth, mine, kind, CATEGORIES, IMAGES[:5])
        assert scores["map"] < fewer["map"]

    def test_only_the_categories_asked_for_count(self, annotations, truth, detections, kind):
        some = [1, 4]
        mine = [one for one in detections if one["category_id"] in some]
        scores = average_precision(truth, mine, kind, some, IMAGES)
        assert scores == pytest.approx(reference(annotations, mine, kind, IMAGES, some), abs=1e-9)

    def test_only_the_best_hundred_of_an_image_count(self, annotations, truth, detections, kind):
        worse = [{**one, "image_id": 0, "score": one["score"] / 2} for one in detections]
        mine = [*only(detections, [0]), *worse[:150]]
        scores = average_precision(truth, mine, kind, CATEGORIES, [0])
        assert scores == pytest.approx(reference(annotations, mine, kind, [0]), abs=1e-9)

    def test_sizes_that_no_object_has_are_left_out(self, annotations, truth, detections, kind):
        scores = average_precision(truth, detections, kind, CATEGORIES, IMAGES)
        assert set(scores) == {"map", "map50", "map75", "map_small", "map_medium"}

    def test_without_a_detection_it_is_zero(self, truth, kind):
        scores = average_precision(truth, [], kind, CATEGORIES, IMAGES)
        assert scores == dict.fromkeys(("map", "map50", "map75", "map_small", "map_medium"), 0.0)

    def test_the_truth_itself_scores_one(self, annotations, truth, kind):
        dataset = json.loads(annotations.read_text())
        perfect = [{**one, "score": 0.9} for one in dataset["annotations"]]
        images = [one["id"] for one in dataset["images"]]
        scores = average_precision(truth, perfect, kind, CATEGORIES, images)
        assert scores == pytest.approx(dict.fromkeys(scores, 1.0))

    def test_scoring_leaves_the_truth_alone(self, truth, detections, kind):
        first = average_precision(truth, detections, kind, CATEGORIES, IMAGES)
        average_precision(truth, [], kind, CATEGORIES, IMAGES)
        assert average_precision(truth, detections, kind, CATEGORIES, IMAGES) == first


def test_a_mask_is_sized_by_itself_and_not_by_its_box(annotations, truth):
    """A digit is small where its box is not; pycocotools sees the mask only."""
    dataset = json.loads(annotations.read_text())
    perfect = [{**one, "score": 0.9, "bbox": [0, 0, 128, 128]} for one in dataset["annotations"]]
    images = [one["id"] for one in dataset["images"]]
    scores = average_precision(truth, perfect, "segm", CATEGORIES, images)
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

    def scores(
        self, annotations: Path, detections: list, images: list[int], **options
    ) -> dict[str, float]:
        metric = CocoAP(**options)
        metric.dataset_meta = {"classes": CLASSES, "ann_file": (str(annotations),)}
        for sample in self.samples(detections, images):
            metric.process({}, [sample])
        return metric.evaluate(len(images))

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
        named = CocoAP(ann_file=str(annotations), metric="segm")
        named.dataset_meta = {"classes": CLASSES}
        for sample in self.samples(detections, IMAGES):
            named.process({}, [sample])
        assert named.evaluate(len(IMAGES)) == self.scores(
            annotations, detections, IMAGES, metric=["segm"]
        )

    def test_every_figure_is_a_metric_of_the_task(self, annotations, detections):
        from tasks.detection.task import DetectionTask

        scores = self.scores(annotations, detections, IMAGES)
        assert scores.keys() <= DetectionTask.metrics.keys()
        assert all(spec == ("fraction", True) for spec in DetectionTask.metrics.values())

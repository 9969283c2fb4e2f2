"""Annotations and detections with everything that COCO has a rule for, and pycocotools' word."""

from __future__ import annotations

import contextlib
import copy
import io
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

STATS = ("map", "map50", "map75", "map_small", "map_medium", "map_large")
HEIGHT, WIDTH = 200, 260
CLASSES = ("red", "green", "blue", "absent")
EMPTY, UNFOUND, CROWDED = 1, 2, 3
"""Images without an object, without a detection, and with over a hundred of one class."""

Dataset = dict[str, Any]
Detections = list[dict[str, Any]]


def random_case(seed: int, images: int = 12, ties: bool = False) -> tuple[Dataset, Detections]:
    """Objects of all sizes, crowds, images without either; found well, badly, twice or not at all.

    Args:
        seed: of the generator.
        images: how many.
        ties: whether many detections share a score.
    """
    rng = np.random.default_rng(seed)
    annotations: Detections = []
    found: Detections = []
    for image in range(images):
        objects = [_object(rng) for _ in range(0 if image == EMPTY else rng.integers(3, 9))]
        for box in objects:
            category = int(rng.integers(1, len(CLASSES)))
            mask = _mask(box)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": category,
                    "bbox": box,
                    "segmentation": mask,
                    "area": float(coco_mask.area(mask)) * rng.choice([0.6, 1.0]),
                    "iscrowd": int(rng.random() < 0.15),
                }
            )
            for _ in range(0 if image == UNFOUND else rng.integers(0, 4)):
                moved = _moved(rng, box)
                other = int(rng.integers(1, len(CLASSES)))
                kind = category if rng.random() < 0.85 else other
                found.append(_found(rng, image, kind, moved))
        count = {EMPTY: 4, UNFOUND: 0, CROWDED: 130}.get(image, int(rng.integers(0, 6)))
        for _ in range(count):
            kind = 1 if image == CROWDED else int(rng.integers(1, len(CLASSES) + 1))
            found.append(_found(rng, image, kind, _object(rng)))
    if ties:
        for one in found:
            one["score"] = round(one["score"], 1)
    dataset = {
        "info": {},
        "images": [{"id": image, "height": HEIGHT, "width": WIDTH} for image in range(images)],
        "categories": [{"id": place, "name": name} for place, name in enumerate(CLASSES, 1)],
        "annotations": annotations,
    }
    return dataset, found


def repeated(dataset: Dataset, found: Detections, counts: np.ndarray) -> tuple[Dataset, Detections]:
    """The same with each image as often as `counts` says, of shape `(images,)`."""
    ids = {
        one["id"]: [1000 * one["id"] + copy for copy in range(count)]
        for one, count in zip(dataset["images"], counts, strict=True)
    }
    images = [{**one, "id": new} for one in dataset["images"] for new in ids[one["id"]]]
    objects = [
        {**one, "image_id": new} for one in dataset["annotations"] for new in ids[one["image_id"]]
    ]
    for number, one in enumerate(objects, 1):
        one["id"] = number
    again = [{**one, "image_id": new} for one in found for new in ids[one["image_id"]]]
    return {**dataset, "images": images, "annotations": objects}, again


def pycocotools_evaluation(
    dataset: Dataset, found: Detections, kind: str, categories: list[int] | None = None
) -> COCOeval:
    """What pycocotools makes of it, told as little as possible."""
    key = "bbox" if kind == "bbox" else "segmentation"
    plain = [
        {name: one[name] for name in ("image_id", "category_id", "score", key)} for one in found
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(dataset)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(plain), kind)
        if categories is not None:
            evaluation.params.catIds = categories
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def pycocotools_stats(*case: Any) -> dict[str, float]:
    """map to map_large, less what has no object; arguments as of `pycocotools_evaluation`."""
    values = zip(STATS, pycocotools_evaluation(*case).stats[:6], strict=True)
    return {name: float(value) for name, value in values if value >= 0}


def _object(rng: np.random.Generator) -> list[float]:
    width, height = np.exp(rng.uniform(np.log(14), np.log(195), 2)).round()
    left, top = (rng.random(2) * (WIDTH - width, HEIGHT - height)).round()
    return [float(left), float(top), float(width), float(height)]


def _moved(rng: np.random.Generator, box: list[float]) -> list[float]:
    left, top, width, height = box
    scale, shift = rng.normal(1, 0.08, 2), rng.normal(0, 0.05, 2) * (width, height)
    size = np.clip((scale * (width, height)).round(), 2, (WIDTH, HEIGHT))
    place = np.clip((np.array([left, top]) + shift).round(), 0, (WIDTH, HEIGHT) - size)
    return [float(value) for value in (*place, *size)]


def _found(rng: np.random.Generator, image: int, kind: int, box: list[float]) -> dict[str, Any]:
    return {
        "image_id": image,
        "category_id": kind,
        "score": float(np.float32(rng.random())),
        "bbox": box,
        "segmentation": _mask(box),
    }


def _mask(box: list[float]) -> dict[str, Any]:
    """The box without its upper left quarter."""
    left, top, width, height = (int(value) for value in box)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[top : top + height, left : left + width] = 1
    mask[top : top + height // 2, left : left + width // 2] = 0
    encoded = coco_mask.encode(mask)
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}

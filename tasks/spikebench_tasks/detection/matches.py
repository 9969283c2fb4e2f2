"""COCO's average precision with a weight for each image, from detections that were matched once.

The rules are those of pycocotools: in each image and category detections take objects by score, at
each IoU threshold and range of object sizes on their own; the curve of precision over recall is
made monotonic and read at 101 recalls. To count an image w times is to count its objects and
detections w times, which is what a bootstrap over images needs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from faster_coco_eval import COCOeval_faster
from numpy.typing import NDArray

HIT, IGNORED, MISS = 1, 0, -1

Array = NDArray[Any]


class Curve(NamedTuple):
    """Precision over recall of one category, size range and IoU threshold, before any weight.

    Attributes:
        place: indices of size range, category and threshold.
        hits: the image of each detection that found an object, by falling score.
        misses: the image of each other one that has a higher score than the last hit.
        misses_before: how many of `misses` come before each hit.
    """

    place: tuple[int, int, int]
    hits: Array
    misses: Array
    misses_before: Array


class Matches:
    """What each detection of a scored set of images found.

    Args:
        evaluation: a COCO evaluation of boxes or masks after `evaluate()`.

    Attributes:
        images: how many images were scored; weights are in the order of their sorted ids.
        objects: how many objects of each size range, category and image count, `(A, K, I)`.
        curves: one for each size range, category and threshold that has a hit.
    """

    def __init__(self, evaluation: COCOeval_faster) -> None:
        params = evaluation.params
        self.images = len(params.imgIds)
        self._recalls: Array = params.recThrs
        self._thresholds = len(params.iouThrs)
        detections = _Detections(evaluation)
        self.objects = np.zeros((len(params.areaRng), len(params.catIds), self.images), np.int32)
        image_of = {image: place for place, image in enumerate(params.imgIds)}
        category_of = {category: place for place, category in enumerate(params.catIds)}
        for (image, category), objects in _objects(evaluation).items():
            ignored, crowd = _ignored(objects, params.areaRng)
            place = image_of[image], category_of[category]
            self.objects[:, place[1], place[0]] = (~ignored).sum(1)
            ious = evaluation.ious[image, category]
            if len(ious):
                detections.match(*place, np.asarray(ious), ignored, crowd, params.iouThrs)
        self.curves = list(detections.curves())

    def average_precision(self, weights: Array) -> Array:
        """AP of each size range, category and threshold, for several weights at once.

        Args:
            weights: how often each image counts, integers of shape `(I, B)`.

        Returns:
            Of shape `(A, K, T, B)`; nan where no object counts.
        """
        total = self.objects @ weights
        shape = (*total.shape[:2], self._thresholds, total.shape[2])
        found = np.zeros(shape)
        for curve in self.curves:
            area, category, _ = curve.place
            found[curve.place] = self._area_under(curve, weights, total[area, category])
        return np.where(total[:, :, None] > 0, found, np.nan)

    def _area_under(self, curve: Curve, weights: Array, total: Array) -> Array:
        hits = np.cumsum(weights[curve.hits], axis=0, dtype=np.int32)
        misses = np.zeros((len(curve.misses) + 1, weights.shape[1]), np.int32)
        np.cumsum(weights[curve.misses], axis=0, out=misses[1:])
        precision = hits / (hits + misses[curve.misses_before] + np.spacing(1))
        best_from_here = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
        reached = np.searchsorted(self._recalls, hits / np.maximum(total, 1), side="right")
        read_here = np.diff(reached, axis=0, prepend=0)
        return (best_from_here * read_here).sum(0) / len(self._recalls)


class _Detections:
    """All detections by category, image and falling score, and what became of them.

    Attributes:
        outcome: HIT, IGNORED or MISS for each size range, threshold and detection, `(A, T, N)`.
    """

    def __init__(self, evaluation: COCOeval_faster) -> None:
        params = evaluation.params
        annotations = evaluation.cocoDt.loadAnns(
            evaluation.cocoDt.getAnnIds(imgIds=params.imgIds, catIds=params.catIds)
        )
        image = np.searchsorted(params.imgIds, [one["image_id"] for one in annotations])
        category = np.searchsorted(params.catIds, [one["category_id"] for one in annotations])
        score = np.array([one["score"] for one in annotations], float)
        area = np.array([one["area"] for one in annotations], float)
        order = np.lexsort((-score, image, category))
        pair = (category * len(params.imgIds) + image)[order]
        rank = np.arange(len(pair)) - np.searchsorted(pair, pair)
        order = order[rank < params.maxDets[-1]]
        self._images = len(params.imgIds)
        self._pair = pair[rank < params.maxDets[-1]]
        self._image, self._category = image[order], category[order]
        self._score = score[order]
        low, high = np.array(params.areaRng).T[..., None]
        outside = (area[order] < low) | (area[order] > high)
        unmatched = np.where(outside, IGNORED, MISS).astype(np.int8)
        self.outcome = np.repeat(unmatched[:, None], len(params.iouThrs), axis=1)

    def match(
        self, image: int, category: int, ious: Array, ignored: Array, crowd: Array, least: Array
    ) -> None:
        """Let the detections of an image and category take objects, the highest score first.

        Of the objects that reach the threshold and are free a detection takes the one with the
        largest IoU, the last of equals; one that does not count only where no other is left. A
        crowd is never taken.

        Args:
            image: its index.
            category: its index.
            ious: with each object, `(D, G)`.
            ignored: objects that do not count in a size range, `(A, G)`.
            crowd: objects that stand for several, `(G,)`.
            least: the thresholds, `(T,)`.
        """
        start = np.searchsorted(self._pair, category * self._images + image)
        least = np.minimum(least, 1 - 1e-10)
        by_iou = ious.argsort(axis=1, kind="stable").argsort(axis=1)
        preference = by_iou[:, None] + np.where(ignored, 0, ious.shape[1])
        free = np.ones((len(ignored), len(least), ious.shape[1]), bool)
        sizes, levels = np.ogrid[: len(ignored), : len(least)]
        for row in np.flatnonzero(ious.max(1) >= least[0]):
            open_to = free & (ious[row] >= least[:, None])
            taken = np.where(open_to, preference[row][:, None], -1).argmax(2)
            found = open_to.any(2)
            outcome = np.where(ignored[sizes, taken], IGNORED, HIT)
            self.outcome[:, :, start + row][found] = outcome[found]
            free[sizes, levels, taken] &= ~found | crowd[taken]

    def curves(self) -> Iterator[Curve]:
        """The curves that have a hit."""
        ends = np.searchsorted(self._category, np.arange(self._category.max(initial=-1) + 2))
        for category, (start, end) in enumerate(zip(ends[:-1], ends[1:], strict=True)):
            by_score = start + np.argsort(-self._score[start:end], kind="stable")
            image = self._image[by_score]
            for area, outcomes in enumerate(self.outcome[:, :, by_score]):
                for threshold, outcome in enumerate(outcomes):
                    hits = np.flatnonzero(outcome == HIT)
                    if not len(hits):
                        continue
                    misses = np.flatnonzero(outcome[: hits[-1]] == MISS)
                    yield Curve(
                        place=(area, category, threshold),
                        hits=image[hits],
                        misses=image[misses],
                        misses_before=np.searchsorted(misses, hits),
                    )


def _objects(evaluation: COCOeval_faster) -> dict[tuple[int, int], list[dict[str, Any]]]:
    """The annotations of each image and category that has any, in the order of the file."""
    params, truth = evaluation.params, evaluation.cocoGt
    pairs = defaultdict(list)
    for one in truth.loadAnns(truth.getAnnIds(imgIds=params.imgIds, catIds=params.catIds)):
        pairs[one["image_id"], one["category_id"]].append(one)
    return pairs


def _ignored(objects: list[dict[str, Any]], ranges: Any) -> tuple[Array, Array]:
    """Which objects do not count in each size range, `(A, G)`, and which are crowds, `(G,)`."""
    crowd = np.array([one.get("iscrowd", 0) for one in objects], bool)
    area = np.array([one["area"] for one in objects], float)
    low, high = np.array(ranges).T[..., None]
    return crowd | (area < low) | (area > high), crowd

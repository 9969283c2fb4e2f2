"""COCO average precision at full precision, by class, and with intervals over images."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from mmdet.evaluation import CocoMetric
from mmengine.fileio import get_local_path
from mmengine.registry import METRICS
from numpy.typing import NDArray

from spikebench.task import ConfigError
from spikebench_tasks.detection.matches import Matches
from spikebench_tasks.detection.task import STATISTICS
from spikebench_tasks.openmmlab.bootstrap import (
    RESAMPLES,
    Floats,
    bootstrap_intervals,
    checked_resamples,
    mean_of_known,
)

_NAMES = {"bbox": "box", "segm": "mask"}


@METRICS.register_module()
class CocoAP(CocoMetric):
    """Box and mask AP of COCO as pycocotools defines them, not rounded.

    Only images with predictions handed in are scored, so a limited test split is scored on itself.
    It takes the place of MMDetection's `CocoMetric` in the inherited configurations of stock data
    sets by its type alone.

    Args:
        ann_file: the COCO annotations; None takes those the data set names in its metainfo.
        metric: "bbox", "segm" or both.
        resamples: how many times the images are drawn again for the 95 % intervals; 0 gives none.
        format_only: only False; predictions for a test server are `CocoMetric`'s to write.
        backend_args: how MMEngine reads `ann_file`.
        collect_device: where MMEngine gathers the results of several processes.
        prefix: before the names that MMEngine logs.

    Attributes:
        intervals: the 95 % interval of each figure, after `compute_metrics`.
        per_class: box_map, box_map50, mask_map and mask_map50 by class, less the classes without
            an object in the images scored.

    Raises:
        ConfigError: `metric` is neither of the two, `resamples` is negative, `format_only` is set,
            nothing names the annotations, or masks are to be scored and none are predicted.
    """

    default_prefix = None
    _coco_api: COCO | None

    def __init__(
        self,
        ann_file: str | None = None,
        metric: str | Sequence[str] = ("bbox", "segm"),
        resamples: int = RESAMPLES,
        format_only: bool = False,
        backend_args: dict[str, Any] | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        kinds = [metric] if isinstance(metric, str) else list(metric)
        if wrong := [kind for kind in kinds if kind not in _NAMES]:
            raise ConfigError(f"CocoAP: metric is {wrong[0]!r}; expected 'bbox', 'segm' or both")
        if format_only:
            raise ConfigError(
                "CocoAP: format_only=True writes predictions and scores nothing; "
                "leave it out, or use type='CocoMetric'"
            )
        super().__init__(
            metric=kinds, backend_args=backend_args, collect_device=collect_device, prefix=prefix
        )
        self.ann_file = ann_file
        self.resamples = checked_resamples(resamples)
        self.intervals: dict[str, tuple[float, float]] = {}
        self.per_class: dict[str, dict[str, float]] = {}

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        if self._coco_api is None:
            self._coco_api = self._annotations()
        super().process(data_batch, data_samples)

    def _annotations(self) -> COCO:
        file = self.ann_file or next(iter(self.dataset_meta.get("ann_file", ())), None)
        if file is None:
            raise ConfigError(
                "CocoAP: no annotations; name their file, as in "
                "val_evaluator=dict(ann_file='data/coco/annotations/instances_val2017.json')"
            )
        with (
            get_local_path(file, backend_args=self.backend_args) as path,
            contextlib.redirect_stdout(io.StringIO()),
        ):
            return COCO(str(path))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """AP by name: box_map, box_map50, ..., mask_map, ...; sizes that no object has left out."""
        assert self._coco_api is not None
        truth = self._coco_api
        scores: dict[str, float] = {}
        self.intervals, self.per_class = {}, {}
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            self.cat_ids = truth.getCatIds(catNms=self.dataset_meta["classes"])
            image_ids = [prediction["img_id"] for _, prediction in results]
            predictions = [prediction for _, prediction in results]
            files = self.results2json(predictions, str(Path(folder) / "predictions"))
            if missing := [kind for kind in self.metrics if kind not in files]:
                raise ConfigError(
                    f"CocoAP: metric asks for {missing[0]!r}, and the model predicts boxes alone; "
                    "set metric='bbox'"
                )
            for kind in self.metrics:
                detections = json.loads(Path(files[kind]).read_text())
                evaluation = evaluate(truth, detections, kind, self.cat_ids, image_ids)
                name = _NAMES[kind]
                scores |= _prefixed(name, average_precision(evaluation))
                self.per_class |= _prefixed(name, class_precision(evaluation))
                self.intervals |= _prefixed(name, precision_intervals(evaluation, self.resamples))
        return scores


def evaluate(
    truth: COCO,
    detections: list[dict[str, Any]],
    kind: str,
    category_ids: Sequence[int],
    image_ids: Sequence[int],
) -> COCOeval_faster:
    """The COCO evaluation of detections in COCO's result format.

    Args:
        truth: the annotations.
        detections: dictionaries with image_id, category_id, score and bbox or segmentation.
        kind: "bbox" or "segm".
        category_ids: the categories to score.
        image_ids: the images to score.
    """
    if kind == "segm":  # a box beside the mask would be taken for the object's size
        detections = [{k: v for k, v in one.items() if k != "bbox"} for one in detections]
    found = truth.loadRes(detections) if detections else COCO({**truth.dataset, "annotations": []})
    evaluation = COCOeval_faster(truth, found, iouType=kind)
    evaluation.params.catIds = list(category_ids)
    evaluation.params.imgIds = list(image_ids)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation


def average_precision(evaluation: COCOeval_faster) -> dict[str, float]:
    """map, map50, map75 and map by object size, less the sizes that no object has."""
    values = zip(STATISTICS, map(float, evaluation.stats[:6]), strict=True)
    return {stat: value for stat, value in values if value >= 0}


def class_precision(evaluation: COCOeval_faster) -> dict[str, dict[str, float]]:
    """By statistic, map and map50, that of each class; those without an object left out."""
    params = evaluation.params
    # of all sizes and at most 100 detections: (thresholds, recalls, categories)
    precision = np.asarray(evaluation.eval["precision"])[:, :, :, 0, -1]
    by_threshold = precision.mean(axis=1)
    named = [
        (category["name"], by_threshold[:, place])
        for place, category in enumerate(evaluation.cocoGt.loadCats(params.catIds))
        if by_threshold[0, place] >= 0
    ]
    at_half = int(np.argmin(abs(params.iouThrs - 0.5)))
    return {
        "map": {name: float(values.mean()) for name, values in named},
        "map50": {name: float(values[at_half]) for name, values in named},
    }


def precision_intervals(
    evaluation: COCOeval_faster, resamples: int = RESAMPLES
) -> dict[str, tuple[float, float]]:
    """95 % intervals of what `average_precision` gives, by bootstrap over the images scored."""
    if resamples == 0:
        return {}
    matches = Matches(evaluation)

    def score(drawn: NDArray[np.int32]) -> dict[str, Floats]:
        return summarized(matches.average_precision(drawn), evaluation.params.iouThrs)

    return bootstrap_intervals(score, matches.images, resamples)


def summarized(precision: Floats, thresholds: Floats) -> dict[str, Floats]:
    """The statistics of `average_precision` from AP by size, category and threshold.

    Args:
        precision: of shape `(4, K, T, B)`, nan where no object counts.
        thresholds: `(T,)`.

    Returns:
        The mean over classes of each statistic, `(B,)`, nan where no class has an object.
    """
    everything, *sizes = precision
    at = {value: int(np.argmin(abs(thresholds - value))) for value in (0.5, 0.75)}
    chosen = [everything.mean(1), everything[:, at[0.5]], everything[:, at[0.75]]]
    chosen += [size.mean(1) for size in sizes]
    return {name: mean_of_known(one) for name, one in zip(STATISTICS, chosen, strict=True)}


def _prefixed(name: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{name}_{stat}": value for stat, value in figures.items()}

"""COCO average precision at full precision."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from faster_coco_eval import COCO, COCOeval_faster
from mmdet.evaluation import CocoMetric
from mmengine.registry import METRICS

from tasks.detection.task import STATS


@METRICS.register_module()
class CocoAP(CocoMetric):
    """Box and mask AP of COCO as pycocotools defines them, not rounded.

    Only images with predictions handed in are scored, so a limited test split is scored on itself.

    Args:
        ann_file: the COCO annotations; None takes those the data set names in its metainfo.
        metric: "bbox", "segm" or both.
    """

    default_prefix = None
    _coco_api: COCO | None

    def __init__(
        self,
        ann_file: str | None = None,
        metric: str | Sequence[str] = ("bbox", "segm"),
        **options: Any,
    ) -> None:
        super().__init__(metric=[metric] if isinstance(metric, str) else list(metric), **options)
        self.ann_file = ann_file

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        if self._coco_api is None:
            with contextlib.redirect_stdout(io.StringIO()):
                self._coco_api = COCO(self.ann_file or self.dataset_meta["ann_file"][0])
        super().process(data_batch, data_samples)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """AP by name: box_map, box_map50, ..., mask_map, ...; see `average_precision`."""
        assert self._coco_api is not None
        truth = self._coco_api
        scores: dict[str, float] = {}
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            self.cat_ids = truth.getCatIds(catNms=self.dataset_meta["classes"])
            image_ids = [prediction["img_id"] for _, prediction in results]
            predictions = [prediction for _, prediction in results]
            files = self.results2json(predictions, str(Path(folder) / "predictions"))
            for kind in self.metrics:
                detections = json.loads(Path(files[kind]).read_text())
                stats = average_precision(truth, detections, kind, self.cat_ids, image_ids)
                name = {"bbox": "box", "segm": "mask"}[kind]
                scores.update({f"{name}_{stat}": value for stat, value in stats.items()})
        return scores


def average_precision(
    truth: COCO,
    detections: list[dict[str, Any]],
    kind: str,
    category_ids: Sequence[int],
    image_ids: Sequence[int],
) -> dict[str, float]:
    """AP of detections in COCO's result format.

    Args:
        truth: the annotations.
        detections: dictionaries with image_id, category_id, score and bbox or segmentation.
        kind: "bbox" or "segm".
        category_ids: the categories to score.
        image_ids: the images to score.

    Returns:
        map, map50, map75 and map by object size, less the sizes that no object has.
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
    values = zip(STATS, map(float, evaluation.stats[:6]), strict=True)
    return {stat: value for stat, value in values if value >= 0}

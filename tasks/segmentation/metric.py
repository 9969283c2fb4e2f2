"""Mean IoU from the confusion over all images, at full precision."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.registry import METRICS
from mmseg.evaluation import IoUMetric


@METRICS.register_module()
class MeanIoU(IoUMetric):
    """mIoU, mean accuracy of classes (mAcc) and pixel accuracy (aAcc), not rounded.

    Areas are summed over all images before any ratio is taken; classes that are neither present nor
    predicted are left out of the means, as in MMSegmentation.
    """

    default_prefix = None

    def __init__(self, **options: Any) -> None:
        super().__init__(iou_metrics=["mIoU"], **options)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Fractions by name: miou, macc, aacc."""
        areas = (torch.stack(list(kind)).double().sum(0) for kind in zip(*results, strict=True))
        intersect, union, _, label = areas
        return {
            "miou": torch.nanmean(intersect / union).item(),
            "macc": torch.nanmean(intersect / label).item(),
            "aacc": (intersect.sum() / label.sum()).item(),
        }

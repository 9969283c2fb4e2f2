"""Mean IoU from the areas over all images, at full precision, by class, and with intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from mmengine.registry import METRICS
from mmseg.evaluation import IoUMetric
from numpy.typing import NDArray

from spikebench.task import ConfigError
from spikebench_tasks.openmmlab.bootstrap import (
    RESAMPLES,
    Floats,
    bootstrap_intervals,
    checked_resamples,
    mean_of_known,
)


@METRICS.register_module()
class MeanIoU(IoUMetric):
    """mIoU, mean accuracy of classes (mAcc) and pixel accuracy (aAcc), not rounded.

    Areas are summed over all images before any ratio is taken; classes that are neither present nor
    predicted are left out of the means, as in MMSegmentation. It takes the place of
    MMSegmentation's `IoUMetric` in an inherited configuration by its type alone.

    Args:
        iou_metrics: only "mIoU", which mAcc and aAcc come with.
        resamples: how many times the images are drawn again for the 95 % intervals; 0 gives none.
        ignore_index: the label of pixels that do not count.
        format_only: only False; predictions for a test server are `IoUMetric`'s to write.
        output_dir: where predicted label maps are written as well; None writes none.
        collect_device: where MMEngine gathers the results of several processes.
        prefix: before the names that MMEngine logs.

    Attributes:
        intervals: the 95 % interval of each figure, after `compute_metrics`.
        per_class: by class the IoUs that miou, and the accuracies that macc, is the mean of.

    Raises:
        ConfigError: another metric than mIoU is asked for, `resamples` is negative, or
            `format_only` is set.
    """

    default_prefix = None

    def __init__(
        self,
        iou_metrics: str | Sequence[str] = ("mIoU",),
        resamples: int = RESAMPLES,
        ignore_index: int = 255,
        format_only: bool = False,
        output_dir: str | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        asked = [iou_metrics] if isinstance(iou_metrics, str) else list(iou_metrics)
        if asked != ["mIoU"]:
            raise ConfigError(f"MeanIoU: iou_metrics is {asked}; expected ['mIoU']")
        if format_only:
            raise ConfigError(
                "MeanIoU: format_only=True writes predictions and scores nothing; "
                "leave it out, or use type='IoUMetric'"
            )
        super().__init__(
            ignore_index=ignore_index,
            iou_metrics=asked,
            output_dir=output_dir,
            collect_device=collect_device,
            prefix=prefix,
        )
        self.resamples = checked_resamples(resamples)
        self.intervals: dict[str, tuple[float, float]] = {}
        self.per_class: dict[str, dict[str, float]] = {}

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Fractions by name: miou, macc, aacc; none where no pixel counts."""
        areas = [torch.stack(list(kind)).double().numpy() for kind in zip(*results, strict=True)]
        intersect, union, _, label = areas  # each (images, classes)

        def by_class(counts: NDArray[np.integer]) -> dict[str, Floats]:
            hits = intersect.T @ counts
            with np.errstate(invalid="ignore"):
                return {"miou": hits / (union.T @ counts), "macc": hits / (label.T @ counts)}

        def score(counts: NDArray[np.integer]) -> dict[str, Floats]:
            means = {name: mean_of_known(values) for name, values in by_class(counts).items()}
            with np.errstate(invalid="ignore"):
                return means | {"aacc": (intersect.sum(1) @ counts) / (label.sum(1) @ counts)}

        once = np.ones((len(results), 1), np.int32)
        self.intervals = bootstrap_intervals(score, len(results), self.resamples)
        self.per_class = {
            name: _known(dict(zip(self.dataset_meta["classes"], values[:, 0], strict=True)))
            for name, values in by_class(once).items()
        }
        return _known({name: values[0] for name, values in score(once).items()})


def _known(figures: dict[str, np.floating]) -> dict[str, float]:
    return {name: float(value) for name, value in figures.items() if not np.isnan(value)}

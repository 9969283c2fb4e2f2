"""The segmentation task."""

from spikebench.task import MetricSpec
from spikebench_tasks.openmmlab.task import OpenMMLabTask


class SegmentationTask(OpenMMLabTask):
    """MMSegmentation segmentors, scored by mean IoU and accuracies over all pixels."""

    metrics = {name: MetricSpec() for name in ("miou", "macc", "aacc")}

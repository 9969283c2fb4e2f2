"""The segmentation task."""

from benchmark.task import MetricSpec
from tasks.openmmlab.task import OpenMMLabTask


class SegmentationTask(OpenMMLabTask):
    """MMSegmentation segmentors, scored by mean IoU and accuracies over all pixels."""

    metrics = {name: MetricSpec() for name in ("miou", "macc", "aacc")}

"""The segmentation task."""

from spikebench.task import MetricSpec
from spikebench_tasks.openmmlab.task import OpenMMLabTask


class SegmentationTask(OpenMMLabTask):
    """MMSegmentation segmentors, scored by mean IoU and accuracies over all pixels."""

    packages = (*OpenMMLabTask.packages, "mmsegmentation")
    modules = ("spikebench_tasks.segmentation.registered",)
    title = "Segmentation"
    metrics = {
        "miou": MetricSpec("mIoU"),
        "macc": MetricSpec("mAcc"),
        "aacc": MetricSpec("aAcc"),
    }

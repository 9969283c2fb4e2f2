"""The detection task."""

from spikebench.task import MetricSpec
from spikebench_tasks.openmmlab.task import OpenMMLabTask

STATISTICS = {
    "map": MetricSpec("AP", decimals=1),
    "map50": MetricSpec("AP50", decimals=1),
    "map75": MetricSpec("AP75", decimals=1),
    "map_small": MetricSpec("AP S", decimals=1, detail=True),
    "map_medium": MetricSpec("AP M", decimals=1, detail=True),
    "map_large": MetricSpec("AP L", decimals=1, detail=True),
}
"""COCO's statistics, of boxes and of masks."""


class DetectionTask(OpenMMLabTask):
    """MMDetection detectors, scored by COCO's box and mask AP."""

    packages = (*OpenMMLabTask.packages, "mmdet", "faster-coco-eval")
    modules = ("spikebench_tasks.detection.registered",)
    title = "Detection"
    metrics = {
        f"{kind}_{name}": spec._replace(title=f"{kind} {spec.title}")
        for detail in (False, True)
        for kind in ("box", "mask")
        for name, spec in STATISTICS.items()
        if spec.detail is detail
    }

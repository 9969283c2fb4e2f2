"""The detection task."""

from spikebench.task import MetricSpec
from spikebench_tasks.openmmlab.task import OpenMMLabTask

STATS = ("map", "map50", "map75", "map_small", "map_medium", "map_large")


class DetectionTask(OpenMMLabTask):
    """MMDetection detectors, scored by COCO's box and mask AP."""

    metrics = {f"{kind}_{stat}": MetricSpec() for kind in ("box", "mask") for stat in STATS}

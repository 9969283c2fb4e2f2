"""What configurations of the detection task name in `custom_imports`."""

from spikebench_tasks.openmmlab import registered  # noqa: I001  (operators first, then mmdet)
from spikebench_tasks.detection import dataset, detectors, heads, metric

__all__ = ["dataset", "detectors", "heads", "metric", "registered"]

"""What configurations of the detection task name in `custom_imports`."""

from tasks.openmmlab import registered  # noqa: I001  (operators first, then mmdet)
from tasks.detection import dataset, detectors, heads, metric

__all__ = ["dataset", "detectors", "heads", "metric", "registered"]

"""What configurations of the segmentation task name in `custom_imports`."""

from tasks.openmmlab import registered  # noqa: I001  (operators first, then mmseg)
from tasks.segmentation import dataset, metric, segmentors

__all__ = ["dataset", "metric", "registered", "segmentors"]

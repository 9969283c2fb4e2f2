"""What configurations of the segmentation task name in `custom_imports`."""

from tasks.openmmlab import registered  # noqa: I001  (operators first, then mmseg)
from tasks.segmentation import dataset, heads, metric, segmentors

__all__ = ["dataset", "heads", "metric", "registered", "segmentors"]

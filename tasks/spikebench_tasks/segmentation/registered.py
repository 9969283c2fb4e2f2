"""What configurations of the segmentation task name in `custom_imports`."""

from spikebench_tasks.openmmlab import registered  # noqa: I001  (operators first, then mmseg)
from spikebench_tasks.segmentation import dataset, heads, metric, segmentors

__all__ = ["dataset", "heads", "metric", "registered", "segmentors"]

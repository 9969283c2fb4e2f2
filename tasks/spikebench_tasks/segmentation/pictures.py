"""What pictures of segmentations need: label maps, as MMSegmentation's visualizer takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import cv2
import numpy as np
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer

from spikebench_tasks.openmmlab.pictures import nearest

PACK = "mmseg.PackSegInputs"


class Visualizer(SegLocalVisualizer):
    """MMSegmentation's visualizer, with names where their region is thickest.

    Its own search sorts the pixels of every region in Python, which takes seconds, and it writes
    over the lower edge.
    """

    def _get_center_loc(self, mask: np.ndarray) -> np.ndarray:
        """The (x, y) that the name of a region `(H, W)` begins at."""
        height, width = mask.shape
        inside = np.pad(mask, 1)  # an edge of the image is one of the region
        depth = cv2.distanceTransform(inside, cv2.DIST_L2, 3)[1:-1, 1:-1]
        y, x = np.unravel_index(depth.argmax(), depth.shape)
        unit = min(height, width) // 15  # the height of a line of text
        return np.array([min(x, max(0, width - 2 * unit)), min(y, height - unit)])


def has_truth(about: Mapping[str, Any]) -> bool:
    """Whether a data set has a label map of an image."""
    return bool(about.get("seg_map_path"))


def truth_step(about: Mapping[str, Any], predicted: SegDataSample) -> dict[str, Any]:
    """The step that loads the label map of an image."""
    return {"type": "mmseg.LoadAnnotations"}


def kept(predicted: SegDataSample, score_threshold: float) -> SegDataSample:
    """The prediction: label maps have no scores."""
    return predicted


def summary(
    sample: SegDataSample, kind: Literal["gt", "pred"], score_threshold: float | None = None
) -> str:
    """Nothing: the picture shows the classes."""
    return ""


def to_draw(
    sample: SegDataSample,
    kind: Literal["gt", "pred"],
    size: tuple[int, int],
    about: Mapping[str, Any],
) -> SegDataSample:
    """A label map as the visualizer draws it: as truth, brought to height and width."""
    labels = getattr(sample, f"{kind}_sem_seg")
    drawn = SegDataSample(metainfo=sample.metainfo)
    drawn.gt_sem_seg = PixelData(data=nearest(torch.as_tensor(labels.data), size))
    return drawn

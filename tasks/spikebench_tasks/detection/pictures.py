"""What pictures of detections need: boxes and masks, as MMDetection's visualizer takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import get_box_tensor
from mmdet.visualization import DetLocalVisualizer
from mmengine.structures import InstanceData
from torch import Tensor

from spikebench_tasks.openmmlab.pictures import nearest

PACK = "mmdet.PackDetInputs"
_FONT = 10


class Visualizer(DetLocalVisualizer):
    """MMDetection's visualizer, with text of one size and all things in their place.

    Its own text is of 6 points on small objects, and a box that reaches out of the image makes it
    shift all that is drawn.
    """

    def set_image(self, image: np.ndarray) -> None:
        super().set_image(image)
        self.ax_save.autoscale(False)

    def draw_texts(self, texts: Any, positions: Any, **options: Any) -> Any:
        if texts:
            super().draw_texts(texts, positions, **{**options, "font_sizes": _FONT})
        return self


def has_truth(about: Mapping[str, Any]) -> bool:
    """Whether a data set knows what is in an image; that may be nothing."""
    return "instances" in about


def truth_step(about: Mapping[str, Any], predicted: DetDataSample) -> dict[str, Any]:
    """The step that loads what is in an image: masks where both sides have them."""
    with_mask = "masks" in predicted.get("pred_instances", ()) and all(
        "mask" in one for one in about["instances"]
    )
    return {"type": "mmdet.LoadAnnotations", "with_bbox": True, "with_mask": with_mask}


def kept(predicted: DetDataSample, score_threshold: float) -> DetDataSample:
    """A prediction less the objects with a lower score."""
    found = predicted.pred_instances
    left = predicted.new()
    left.pred_instances = found[found.scores >= score_threshold]
    return left


def summary(
    sample: DetDataSample, kind: Literal["gt", "pred"], score_threshold: float | None = None
) -> str:
    """How many objects there are, for a title."""
    count = len(getattr(sample, f"{kind}_instances"))
    above = "" if score_threshold is None else f", score at least {score_threshold:g}"
    return f": {count} object{'' if count == 1 else 's'}{above}"


def to_draw(
    sample: DetDataSample,
    kind: Literal["gt", "pred"],
    size: tuple[int, int],
    about: Mapping[str, Any],
) -> DetDataSample:
    """Objects as the visualizer draws them: as truth, with a text for each.

    Args:
        sample: truth or prediction of an image, at the image's own size.
        kind: which of the two.
        size: height and width that it is drawn at.
        about: classes of the data set; the name of an only class is not written.
    """
    fields = dict(getattr(sample, f"{kind}_instances").items())
    if "bboxes" in fields:
        height, width = sample.ori_shape
        boxes = get_box_tensor(fields["bboxes"])
        scale = boxes.new_tensor([size[1] / width, size[0] / height] * 2)
        fields["bboxes"] = boxes * scale
    if "masks" in fields:
        masks = fields["masks"]
        whole = masks if isinstance(masks, Tensor) else masks.to_tensor(torch.bool, "cpu")
        fields["masks"] = nearest(whole, size)
    fields["labels"] = torch.as_tensor(fields["labels"])
    scores = fields.pop("scores", [None] * len(fields["labels"]))
    fields["label_names"] = [
        _text(int(label), score, about.get("classes"))
        for label, score in zip(fields["labels"], scores, strict=True)
    ]
    drawn = DetDataSample(metainfo=sample.metainfo)
    drawn.gt_instances = InstanceData(**fields)
    return drawn


def _text(label: int, score: Tensor | None, classes: Any) -> str:
    name = f"class {label}" if classes is None else classes[label]
    words = [] if classes is not None and len(classes) == 1 else [name]
    return " ".join(words if score is None else [*words, f"{float(score):.2f}"])

"""MMDetection's detectors on a registered backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmdet.models import FasterRCNN, MaskRCNN, RetinaNet
from mmengine.registry import MODELS

from spikebench_tasks.openmmlab.fitting import fit_to_backbone


class _Fitted:
    """Mixin before a detector: neck, anchors and RoI features are fitted to its backbone."""

    def __init__(self, backbone: Mapping[str, Any], neck: Mapping[str, Any], **parts: Any) -> None:
        fitted_neck, parts = fit_to_backbone(backbone, neck, parts)
        super().__init__(backbone=backbone, neck=fitted_neck, **parts)  # type: ignore[call-arg]


@MODELS.register_module()
class SpikingMaskRCNN(_Fitted, MaskRCNN):
    """Mask R-CNN on a spiking backbone."""


@MODELS.register_module()
class SpikingFasterRCNN(_Fitted, FasterRCNN):
    """Faster R-CNN on a spiking backbone."""


@MODELS.register_module()
class SpikingRetinaNet(_Fitted, RetinaNet):
    """RetinaNet on a spiking backbone."""

"""MMDetection's detectors on a registered backbone."""

from __future__ import annotations

from typing import Any

from mmdet.models import MaskRCNN
from mmengine.registry import MODELS

from tasks.openmmlab.adapter import fit_to_backbone


@MODELS.register_module()
class SpikingMaskRCNN(MaskRCNN):
    """Mask R-CNN whose neck, anchors and RoI features are fitted to its spiking backbone."""

    def __init__(self, backbone: dict[str, Any], neck: dict[str, Any], **parts: Any) -> None:
        neck, parts = fit_to_backbone(backbone, neck, parts)
        super().__init__(backbone=backbone, neck=neck, **parts)

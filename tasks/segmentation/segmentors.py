"""MMSegmentation's segmentors on a registered backbone."""

from __future__ import annotations

from typing import Any

from mmengine.registry import MODELS
from mmseg.models import EncoderDecoder

from tasks.openmmlab.adapter import fit_to_backbone


@MODELS.register_module()
class SpikingEncoderDecoder(EncoderDecoder):
    """Encoder-decoder whose neck and decode head are fitted to its spiking backbone."""

    def __init__(
        self, backbone: dict[str, Any], neck: dict[str, Any], decode_head: Any, **parts: Any
    ) -> None:
        neck, heads = fit_to_backbone(backbone, neck, {"decode_head": decode_head, **parts})
        super().__init__(backbone=backbone, neck=neck, **heads)

"""MMSegmentation's segmentors on a registered backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.registry import MODELS
from mmseg.models import EncoderDecoder

from spikebench_tasks.openmmlab.fitting import fit_to_backbone


@MODELS.register_module()
class SpikingEncoderDecoder(EncoderDecoder):
    """Encoder-decoder whose neck, if any, and decode heads are fitted to its spiking backbone."""

    def __init__(
        self,
        backbone: Mapping[str, Any],
        decode_head: Mapping[str, Any],
        neck: Mapping[str, Any] | None = None,
        **parts: Any,
    ) -> None:
        neck, heads = fit_to_backbone(backbone, neck, {"decode_head": decode_head, **parts})
        super().__init__(backbone=backbone, neck=neck, **heads)

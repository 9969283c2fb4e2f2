"""MMSegmentation's neck and decode heads, reading spikes.

See `spikebench_tasks.openmmlab.spiking` for how they treat time. Logits are the mean over time.
Layers and parameters are those of the stock classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mmcv.cnn import ConvModule
from mmseg.models import FPN, FCNHead, FPNHead, UPerHead
from mmseg.registry import MODELS
from torch import Tensor, nn

from spikebench_tasks.openmmlab.spiking import SpikingConvs, SpikingPyramid


@MODELS.register_module()
class SpikingFPN(SpikingPyramid, FPN):
    """FPN: neuron, then 1x1 lateral; neuron, then 3x3 output."""


class SpikingDecodeHead(SpikingConvs):
    """Mixin before a stock decode head: neuron, convolution, norm; neuron, 1x1 classifier."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.fire = self.new_fire()

    def cls_seg(self, feat: Tensor) -> Tensor:
        """Membranes `(T * B, C, H, W)` to logits `(B, classes, H, W)`."""
        return self.mean_over_time(super().cls_seg(self.fire(feat)))  # type: ignore[misc]


@MODELS.register_module()
class SpikingFPNHead(SpikingDecodeHead, FPNHead):
    """Head of Semantic FPN: each level convolved, upsampled and added to the finest."""

    def read_by_neurons(self) -> Iterable[nn.Module]:
        """All but the last convolution of each level below the finest, which are added to it."""
        first, *others = [
            [layer for layer in scale_head if isinstance(layer, ConvModule)]
            for scale_head in self.scale_heads
        ]
        return [*first, *(layer for layers in others for layer in layers[:-1])]


@MODELS.register_module()
class SpikingUPerHead(SpikingDecodeHead, UPerHead):
    """Head of UPerNet: pooling pyramid on the deepest map, a pyramid from the top down."""

    def read_by_neurons(self) -> Iterable[nn.Module]:
        """All but the lateral layers, which are added to the top."""
        added = set(self.lateral_convs)
        return [layer for layer in super().read_by_neurons() if layer not in added]


@MODELS.register_module()
class SpikingFCNHead(SpikingDecodeHead, FCNHead):
    """A few 3x3 convolutions on one map; of use as an auxiliary head."""

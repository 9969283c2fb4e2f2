"""MMDetection's neck and heads, reading spikes.

See `spikebench_tasks.openmmlab.spiking` for how they treat time. What leaves a head is the mean
over time, so that losses, anchors and post-processing are the stock ones. Layers and parameters are
those of the stock classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from mmcv.cnn import ConvModule, build_norm_layer
from mmdet.models import (
    FPN,
    FCNMaskHead,
    RetinaHead,
    RPNHead,
    Shared2FCBBoxHead,
    SingleRoIExtractor,
)
from mmdet.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from spikebench.task import ConfigError
from spikebench_tasks.openmmlab.spiking import SpikingConvs, SpikingLayers, SpikingPyramid


@MODELS.register_module()
class SpikingFPN(SpikingPyramid, FPN):
    """FPN: neuron, then 1x1 lateral; neuron, then 3x3 output."""


@MODELS.register_module()
class SpikingRPNHead(SpikingLayers, RPNHead):
    """RPN head with one 3x3 convolution: neuron, 3x3; neuron, objectness and deltas 1x1."""

    def _init_layers(self) -> None:
        super()._init_layers()
        if self.num_convs != 1:
            raise ConfigError(f"num_convs={self.num_convs}; a SpikingRPNHead has 1")
        self.fire_in, self.fire_out = self.new_fire(), self.new_fire()

    def read_by_neurons(self) -> Iterable[nn.Module]:
        """The shared 3x3 convolution."""
        return [self.rpn_conv]

    def forward_single(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A level `(T * B, C, H, W)` to scores and deltas `(B, A, H, W)`, `(B, 4 A, H, W)`."""
        spikes = self.fire_out(self.rpn_conv(self.fire_in(x)))
        return self.mean_over_time(self.rpn_cls(spikes)), self.mean_over_time(self.rpn_reg(spikes))


@MODELS.register_module()
class SpikingRetinaHead(SpikingConvs, RetinaHead):
    """RetinaNet's head: stacks of neuron and 3x3; neuron, then scores and deltas 3x3."""

    def _init_layers(self) -> None:
        super()._init_layers()
        self.fire_cls, self.fire_reg = self.new_fire(), self.new_fire()

    def forward_single(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A level `(T * B, C, H, W)` to scores and deltas `(B, A K, H, W)`, `(B, 4 A, H, W)`."""
        scored = regressed = x
        for layer in self.cls_convs:
            scored = layer(scored)
        for layer in self.reg_convs:
            regressed = layer(regressed)
        scores = self.retina_cls(self.fire_cls(scored))
        deltas = self.retina_reg(self.fire_reg(regressed))
        return self.mean_over_time(scores), self.mean_over_time(deltas)


@MODELS.register_module()
class SpikingRoIExtractor(SingleRoIExtractor):
    """Pools every region at every time step, in float32 at least.

    The stock one rounds corners and indices of images to the maps' type: in bfloat16 a region at
    x = 733.9 is pooled at 732.

    Args:
        time_steps: T of the maps; the adapter fills it in.
        **options: those of `SingleRoIExtractor`.
    """

    def __init__(self, time_steps: int = 1, **options: Any) -> None:
        super().__init__(**options)
        self.time_steps = time_steps

    def forward(
        self, feats: tuple[Tensor, ...], rois: Tensor, roi_scale_factor: float | None = None
    ) -> Tensor:
        """Maps `(T * B, C, H_i, W_i)` and regions `(K, 5)` to `(T * K, C, h, w)`."""
        feats = tuple(each.to(torch.promote_types(each.dtype, torch.float32)) for each in feats)
        images = len(feats[0]) // self.time_steps
        every = rois.repeat(self.time_steps, 1, 1)
        every[..., 0] += images * rois.new_tensor(range(self.time_steps))[:, None]
        return super().forward(feats, every.flatten(0, 1), roi_scale_factor)


@MODELS.register_module()
class SpikingShared2FCBBoxHead(SpikingLayers, Shared2FCBBoxHead):
    """Box head: twice neuron and fully connected layer; class and box are read off real values.

    Args:
        norm_cfg: a norm behind either layer, such as `dict(type="BN1d")`. The published head has
            none, and learns little from scratch: what arrives at its second neurons is of any size.
        **options: those of `SpikingLayers` and `Shared2FCBBoxHead`.
    """

    def __init__(self, norm_cfg: Mapping[str, Any] | None = None, **options: Any) -> None:
        super().__init__(**options)
        if self.with_avg_pool or not (self.with_cls and self.with_reg):
            raise ConfigError(
                f"with_avg_pool={self.with_avg_pool}, with_cls={self.with_cls}, "
                f"with_reg={self.with_reg}; a SpikingShared2FCBBoxHead pools nothing and has both"
            )
        self.fires = nn.ModuleList(self.new_fire() for _ in self.shared_fcs)
        self.norms = nn.ModuleList(
            build_norm_layer(dict(norm_cfg), layer.out_features)[1] if norm_cfg else nn.Identity()
            for layer in self.shared_fcs
        )

    def read_by_neurons(self) -> Iterable[nn.Module]:
        """The fully connected layers, or norms behind them, but the last."""
        layers = self.shared_fcs if isinstance(self.norms[0], nn.Identity) else self.norms
        return layers[:-1]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Regions `(T * K, C, h, w)` to scores and deltas, `(K, ...)` each."""
        x = x.flatten(1)
        for fire, layer, norm in zip(self.fires, self.shared_fcs, self.norms, strict=True):
            x = _normed(layer(fire(x)), norm)
        x = self.mean_over_time(x)
        return self.fc_cls(x), self.fc_reg(x)


def _normed(x: Tensor, norm: nn.Module) -> Tensor:
    if len(x) == 1 and norm.training and isinstance(norm, _BatchNorm):
        # a single region has no variance, of which a batch norm would raise
        found = norm.running_mean, norm.running_var
        return functional.batch_norm(x, *found, norm.weight, norm.bias, eps=norm.eps)
    return norm(x)


@MODELS.register_module()
class SpikingFCNMaskHead(SpikingConvs, FCNMaskHead):
    """Mask head: neuron and 3x3, several times; neuron and 2x2 deconvolution; neuron and logits.

    Args:
        residual: whether the output of a 3x3 convolution is added to the membranes that it read,
            where both have as many channels. The published head has no such shortcut, and its
            neurons fall silent from the second convolution on.
        **options: those of `SpikingLayers` and `FCNMaskHead`.
    """

    def __init__(self, residual: bool = False, **options: Any) -> None:
        super().__init__(**options)
        if self.upsample_method != "deconv":
            raise ConfigError(f"upsample_cfg.type={self.upsample_method!r}; expected 'deconv'")
        self.residual = residual
        self.fire_upsample, self.fire_logits = self.new_fire(), self.new_fire()

    def init_weights(self) -> None:
        """Initialise as the stock class does, but for the logits.

        That draws their weights the wider the fewer classes there are: for a single one logits of
        spikes would start at a standard deviation of 8.
        """
        super().init_weights()
        nn.init.kaiming_normal_(self.conv_logits.weight, nonlinearity="relu")

    def read_by_neurons(self) -> Iterable[nn.Module]:
        """The deconvolution and the 3x3 convolutions, but those whose output a shortcut adds."""
        convs = [layer for layer in self.convs if not self._adds(layer)]
        return [*convs, self.upsample]

    def forward(self, x: Tensor) -> Tensor:
        """Regions `(T * K, C, h, w)` to mask logits `(K, classes, 2 h, 2 w)`."""
        for layer in self.convs:
            x = x + layer(x) if self._adds(layer) else layer(x)
        x = self.upsample(self.fire_upsample(x))
        return self.mean_over_time(self.conv_logits(self.fire_logits(x)))

    def _adds(self, layer: ConvModule) -> bool:
        return self.residual and layer.in_channels == layer.out_channels

"""What somebody else may bring to spikebench: one of each; here the backbone, a plain ConvNet.

Every stage is LIF -> conv -> BN; its output, a real-valued membrane, is a map of the backbone. The
first stage reads the image and has no LIF.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, nn

from spikebench import register_backbone
from spikebench.backbones import FeatureInfo, to_time_first
from spikebench.neurons import NeuronName, neuron_factory


class Stage(nn.Module):
    """LIF -> conv -> BN over (T, B, C, H, W)."""

    def __init__(
        self, dim_in: int, dim_out: int, stride: int, neuron: Callable[..., nn.Module]
    ) -> None:
        super().__init__()
        self.lif = neuron()
        self.conv = nn.Conv2d(dim_in, dim_out, stride + 1, stride, stride // 2, bias=False)
        self.norm = nn.BatchNorm2d(dim_out)

    def forward(self, x: Tensor) -> Tensor:
        frames = self.lif(x).flatten(0, 1)
        return self.norm(self.conv(frames)).unflatten(0, x.shape[:2])


class TinySpikingConvNet(nn.Module):
    """Stages at strides 4, 8, 16, 32, one for each of `channels`."""

    def __init__(
        self,
        channels: Sequence[int] = (24, 40, 56, 72),
        time_steps: int = 1,
        in_channels: int = 3,
        neuron: NeuronName = "lif",
    ) -> None:
        super().__init__()
        self.time_steps = time_steps
        self.feature_info = [FeatureInfo(c, 4 * 2**i) for i, c in enumerate(channels)]
        spiking = neuron_factory(neuron, time_steps)
        self.stages = nn.ModuleList(
            Stage(dim_in, dim_out, 2 if index else 4, spiking if index else nn.Identity)
            for index, (dim_in, dim_out) in enumerate(pairwise([in_channels, *channels]))
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = to_time_first(x, self.time_steps, self.feature_info[-1].stride)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps)


@register_backbone
def tiny_spiking_convnet(**overrides) -> TinySpikingConvNet:
    """A spiking ConvNet of four layers."""
    return TinySpikingConvNet(**overrides)

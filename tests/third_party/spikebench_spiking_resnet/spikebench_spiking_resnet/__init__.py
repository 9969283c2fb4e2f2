"""Spiking ResNets with membrane shortcuts and SpikingJelly's neurons.

Residuals add real-valued membranes (Hu et al., 2021, arXiv 2112.08954), so that every convolution
but the first meets spikes. All tensors are (T, B, C, H, W).
"""

from __future__ import annotations

from collections.abc import Sequence

from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor, nn

from spikebench import register_backbone
from spikebench.backbones import FeatureInfo, to_time_first


def spiking_neuron() -> nn.Module:
    """LIF over all time steps; its membrane stays in the module until `functional.reset_net`."""
    return neuron.LIFNode(
        tau=2.0,
        decay_input=False,
        v_threshold=1.0,
        v_reset=0.0,
        surrogate_function=surrogate.Sigmoid(alpha=4.0),
        detach_reset=True,
        step_mode="m",
    )


class ConvNorm(nn.Module):
    """Convolution and batch norm of every time step."""

    def __init__(self, dim_in: int, dim_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim_in, dim_out, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(dim_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x.flatten(0, 1))).unflatten(0, x.shape[:2])


class Block(nn.Module):
    """Twice LIF, conv 3x3, BN, beside a shortcut of membranes, or of spikes where shapes change."""

    def __init__(self, dim_in: int, dim_out: int, stride: int = 1) -> None:
        super().__init__()
        self.lif1 = spiking_neuron()
        self.conv1 = ConvNorm(dim_in, dim_out, 3, stride)
        self.lif2 = spiking_neuron()
        self.conv2 = ConvNorm(dim_out, dim_out, 3)
        same = stride == 1 and dim_in == dim_out
        self.shortcut = None if same else ConvNorm(dim_in, dim_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.lif1(x)
        residual = self.conv2(self.lif2(self.conv1(spikes)))
        return residual + (x if self.shortcut is None else self.shortcut(spikes))


def stage(dim_in: int, dim_out: int, depth: int, stride: int) -> nn.Sequential:
    """Blocks of which the first changes the shape."""
    others = [Block(dim_out, dim_out) for _ in range(depth - 1)]
    return nn.Sequential(Block(dim_in, dim_out, stride), *others)


class SpikingResNet(nn.Module):
    """Four stages behind a stem of stride 4: maps at strides 4, 8, 16 and 32.

    Args:
        widths: channels of the stages.
        depths: blocks of the stages.
        time_steps: T; an image is repeated T times.
        in_channels: 3 for images, 2 for event frames.
    """

    strides = (1, 2, 2, 2)

    def __init__(
        self,
        widths: Sequence[int],
        depths: Sequence[int],
        time_steps: int = 1,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.time_steps = time_steps
        self.feature_info = [FeatureInfo(dim, 4 * 2**index) for index, dim in enumerate(widths)]
        self.stem = ConvNorm(in_channels, widths[0], 7, 4)
        dims_in = [widths[0], *widths[:-1]]
        self.stages = nn.ModuleList(map(stage, dims_in, widths, depths, self.strides))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images `(B, C, H, W)` or frames `(B, T, C, H, W)` to four membrane maps."""
        x = self.stem(to_time_first(x, self.time_steps, self.feature_info[-1].stride))
        maps = []
        try:
            for blocks in self.stages:
                x = blocks(x)
                maps.append(x)
        finally:
            functional.reset_net(self)  # no state survives a call, not even one that failed
        return tuple(maps)


@register_backbone
def spiking_resnet18(**overrides) -> SpikingResNet:
    """A spiking ResNet-18 with SpikingJelly's neurons."""
    return SpikingResNet(**{"widths": (64, 128, 256, 512), "depths": (2, 2, 2, 2), **overrides})


@register_backbone
def spiking_resnet_nano(**overrides) -> SpikingResNet:
    """A small one for small images and machines without accelerators."""
    return SpikingResNet(**{"widths": (16, 32, 64, 128), "depths": (1, 1, 1, 1), **overrides})

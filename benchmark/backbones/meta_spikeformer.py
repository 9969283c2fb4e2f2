"""Meta-SpikeFormer: the backbone of "Spike-driven Transformer V2" (Yao et al., ICLR 2024).

arXiv 2404.03663. Five stages at strides 2, 4, 8, 16, 16: three of spiking convolution blocks, two
of spiking transformer blocks, with membrane shortcuts: residuals add real-valued membranes, and
every weight is met by spikes (separable and re-parameterisable convolutions are linear maps of
spikes). All tensors are (T, B, C, H, W).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from benchmark.backbones.layers import ConvNorm, MatMul, norm_of_zero, per_frame
from benchmark.backbones.zoo import FeatureInfo, register_backbone, to_time_first
from benchmark.neurons import LIF


class Downsample(ConvNorm):
    """LIF -> conv -> BN between stages; the stem, which reads the image, has no LIF."""

    def __init__(self, dim_in: int, dim_out: int, stride: int, stem: bool = False) -> None:
        super().__init__(dim_in, dim_out, 7 if stem else 3, stride, bias=True)
        self.lif = nn.Identity() if stem else LIF()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.lif(x))


class SepConv(nn.Module):
    """Spiking separable convolution: LIF, pw, BN, LIF, dw 7x7, pw, BN.

    Nothing stands between the depthwise and the second pointwise convolution: together they are one
    linear map of spikes.
    """

    def __init__(self, dim: int, expansion: int = 2) -> None:
        super().__init__()
        hidden = expansion * dim
        self.lif1 = LIF()
        self.pw1 = ConvNorm(dim, hidden)
        self.lif2 = LIF()
        self.dw = nn.Conv2d(hidden, hidden, 7, padding=3, groups=hidden, bias=False)
        self.pw2 = ConvNorm(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pw1(self.lif1(x))
        return self.pw2(per_frame(self.dw, self.lif2(x)))


class ChannelConv(nn.Module):
    """Spiking channel mixer of the convolution blocks: twice LIF, conv 3x3, BN."""

    def __init__(self, dim: int, expansion: int = 4) -> None:
        super().__init__()
        self.lif1 = LIF()
        self.conv1 = ConvNorm(dim, expansion * dim, 3)
        self.lif2 = LIF()
        self.conv2 = ConvNorm(expansion * dim, dim, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.lif2(self.conv1(self.lif1(x))))


class ConvBlock(nn.Module):
    """A convolution block: two membrane shortcuts."""

    def __init__(self, dim: int, mlp_ratio: int) -> None:
        super().__init__()
        self.sep_conv = SepConv(dim)
        self.channel_conv = ChannelConv(dim, mlp_ratio)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.sep_conv(x)
        return x + self.channel_conv(x)


class RepConv(nn.Module):
    """A 3x3 convolution in three linear parts: pw, BN, dw 3x3, pw, BN; over frames (N, C, H, W).

    The border is padded with what the first BN gives to zero, so that in evaluation the whole is
    exactly one dense 3x3 convolution of zero-padded spikes.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.pw1 = nn.Conv2d(dim, dim, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(dim)
        self.dw = nn.Conv2d(dim, dim, 3, groups=dim, bias=False)
        self.pw2 = nn.Conv2d(dim, dim, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pw1(x)
        border = norm_of_zero(self.norm1, x).to(x.dtype)
        frames, channels, height, width = x.shape
        padded = border[:, None, None].expand(frames, channels, height + 2, width + 2).clone()
        padded[..., 1:-1, 1:-1] = self.norm1(x)
        return self.norm2(self.pw2(self.dw(padded)))


class RepConvNorm(nn.Module):
    """RepConv and a BN of its own."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = RepConv(dim)
        self.norm = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        return per_frame(lambda frames: self.norm(self.conv(frames)), x)


class SpikeDrivenAttention(nn.Module):
    """SDSA-3: SN(Q (K^T V)), linear in the number of tokens; Q, K and V are spikes.

    The scale is 0.125 whatever the head size, and the LIF behind the products fires at 0.5.
    """

    scale = 0.125

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"{dim} channels cannot be split into {num_heads} heads")
        self.num_heads = num_heads
        self.lif = LIF()
        self.q, self.q_lif = RepConvNorm(dim), LIF()
        self.k, self.k_lif = RepConvNorm(dim), LIF()
        self.v, self.v_lif = RepConvNorm(dim), LIF()
        self.kv = MatMul()
        self.qkv = MatMul()
        self.attn_lif = LIF(threshold=0.5)
        self.proj = RepConvNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = self.lif(x)
        # (T, B, heads, head size, tokens): tokens last, as the maps lie in memory
        q, k, v = (
            lif(conv(x)).flatten(3).unflatten(2, (self.num_heads, -1))
            for conv, lif in ((self.q, self.q_lif), (self.k, self.k_lif), (self.v, self.v_lif))
        )
        kv = self.kv(k, v.transpose(-1, -2))
        attended = self.qkv(q.transpose(-1, -2), kv).transpose(-1, -2) * self.scale
        spikes = self.attn_lif(attended.flatten(2, 3))
        return self.proj(spikes.unflatten(-1, (height, width)))


class SpikingMLP(nn.Module):
    """Channel mixer of the transformer blocks: twice LIF, pw with bias, BN."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.lif1 = LIF()
        self.fc1 = ConvNorm(dim, hidden, bias=True)
        self.lif2 = LIF()
        self.fc2 = ConvNorm(hidden, dim, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.lif2(self.fc1(self.lif1(x))))


class TransformerBlock(nn.Module):
    """Spike-driven self-attention and MLP, each behind a membrane shortcut."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.attn = SpikeDrivenAttention(dim, num_heads)
        self.mlp = SpikingMLP(dim, mlp_ratio * dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(x)
        return x + self.mlp(x)


def _norms_before_neurons(module: nn.Module) -> list[nn.BatchNorm2d]:
    match module:
        case Downsample():
            return [module.norm]
        case SepConv():
            return [module.pw1.norm]
        case ChannelConv():
            return [module.conv1.norm]
        case SpikeDrivenAttention():
            return [module.q.norm, module.k.norm, module.v.norm]
        case SpikingMLP():
            return [module.fc1.norm]
    return []


class Stage(nn.Module):
    """A downsample and the blocks at its resolution."""

    def __init__(self, downsample: Downsample, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))


class MetaSpikeformer(nn.Module):
    """Meta-SpikeFormer without its classifier.

    Args:
        embed_dims: channels of stages 2 to 5; stage 1 has half of the first.
        depths: blocks of stages 1 to 5; the first three hold convolution blocks.
        num_heads: attention heads of the transformer blocks.
        mlp_ratio: expansion of the channel mixers.
        time_steps: T; an image is repeated T times.
        in_channels: channels of the input: 3 for images, 2 for event frames.
        norm_bias: initial bias of the batch norms that neurons read. At T = 1 a neuron fires where
            its input reaches 2: with a bias of 0 that is 2 % of them at first, with 2 it is half,
            which trains much faster from scratch.
    """

    strides = (2, 2, 2, 2, 1)

    def __init__(
        self,
        embed_dims: Sequence[int],
        depths: Sequence[int] = (1, 1, 2, 6, 2),
        num_heads: int = 8,
        mlp_ratio: int = 4,
        time_steps: int = 1,
        in_channels: int = 3,
        norm_bias: float = 0.0,
    ) -> None:
        super().__init__()
        if len(embed_dims) != 4 or len(depths) != 5:
            raise ValueError(
                f"embed_dims={tuple(embed_dims)} and depths={tuple(depths)}; "
                "expected 4 widths (stages 2 to 5) and 5 depths (stages 1 to 5)"
            )
        if min(depths) < 1 or time_steps < 1:
            raise ValueError(f"depths={tuple(depths)}, time_steps={time_steps}; each is at least 1")
        self.time_steps = time_steps
        dims = [embed_dims[0] // 2, *embed_dims]
        stages = []
        stride = 1
        self.feature_info: list[FeatureInfo] = []
        for index, (dim, depth) in enumerate(zip(dims, depths, strict=True)):
            stem = index == 0
            downsample = Downsample(
                in_channels if stem else dims[index - 1], dim, self.strides[index], stem
            )
            if index < 3:
                blocks: list[nn.Module] = [ConvBlock(dim, mlp_ratio) for _ in range(depth)]
            else:
                blocks = [TransformerBlock(dim, num_heads, mlp_ratio) for _ in range(depth)]
            stages.append(Stage(downsample, blocks))
            stride *= self.strides[index]
            self.feature_info.append(FeatureInfo(channels=dim, stride=stride))
        self.stages = nn.ModuleList(stages)
        self._initialise(norm_bias)

    def _initialise(self, norm_bias: float) -> None:
        for module in self.modules():
            for norm in _norms_before_neurons(module):
                nn.init.constant_(norm.bias, norm_bias)
        # The last map starts where a LIF fires. Otherwise the neuron behind the spatial mean is
        # silent at T = 1, and the gradient of the classifier's weight is exactly zero.
        last = [module for module in self.modules() if isinstance(module, SpikingMLP)][-1]
        nn.init.constant_(last.fc2.norm.bias, last.lif1.tau * last.lif1.threshold - norm_bias)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Image batch `(B, C, H, W)` or event frames `(B, T, C, H, W)` to five membrane maps.

        Returns:
            Maps `(T, B, C_i, H / s_i, W / s_i)`, real-valued, at strides 2, 4, 8, 16, 16.

        Raises:
            ValueError: H or W is not divisible by 16, or the frames are not T in number.
        """
        x = to_time_first(x, self.time_steps, self.feature_info[-1].stride)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps)


def _build(defaults: dict, overrides: dict) -> MetaSpikeformer:
    return MetaSpikeformer(**{**defaults, **overrides})


@register_backbone
def meta_spikeformer_15m(**overrides) -> MetaSpikeformer:
    """Meta-SpikeFormer 15M of the paper: 15,112,208 parameters with 1000 classes."""
    return _build({"embed_dims": (64, 128, 256, 360)}, overrides)


@register_backbone
def meta_spikeformer_31m(**overrides) -> MetaSpikeformer:
    """Meta-SpikeFormer 31M of the paper: 31,333,864 parameters with 1000 classes."""
    return _build({"embed_dims": (96, 192, 384, 480)}, overrides)


@register_backbone
def meta_spikeformer_55m(**overrides) -> MetaSpikeformer:
    """Meta-SpikeFormer 55M of the paper: 55,350,248 parameters with 1000 classes."""
    return _build({"embed_dims": (128, 256, 512, 640)}, overrides)


@register_backbone
def meta_spikeformer_nano(**overrides) -> MetaSpikeformer:
    """A small Meta-SpikeFormer for small images and machines without accelerators."""
    defaults = {
        "embed_dims": (16, 48, 96, 160),
        "depths": (1, 1, 1, 2, 1),
        "num_heads": 4,
        "norm_bias": 2.0,
    }
    return _build(defaults, overrides)

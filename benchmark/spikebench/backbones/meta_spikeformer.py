"""Meta-SpikeFormer: the backbone of "Spike-driven Transformer V2" (Yao et al., ICLR 2024).

arXiv 2404.03663. Five stages; SN is a spiking neuron, pw and dw are pointwise and depthwise
convolutions, and a batch norm follows every convolution but dw:

    stage  stride  channels (15M)  begins with             blocks
    1      2       32              conv 7x7 stride 2       1 conv block
    2      4       64              SN, conv 3x3 stride 2   1 conv block
    3      8       128             SN, conv 3x3 stride 2   2 conv blocks
    4      16      256             SN, conv 3x3 stride 2   6 transformer blocks
    5      16      360             SN, conv 3x3 stride 1   2 transformer blocks

    conv block         x <- x + SepConv(x)        SepConv:      SN, pw, SN, dw 7x7, pw
                       x <- x + ChannelConv(x)    ChannelConv:  SN, conv 3x3, SN, conv 3x3
    transformer block  x <- x + SDSA(x)           SDSA:         see `attention`
                       x <- x + MLP(x)            MLP:          SN, pw, SN, pw

As published, the x that blocks carry on is a membrane: residuals add real values, and every weight
is met by spikes (separable and re-parameterisable convolutions are linear maps of spikes). The
other designs that the paper compares are arguments: attentions, and the shortcuts of `layers`.
Where spikes are carried on, neurons stand behind the batch norms of a downsample or branch and not
in front of its convolutions. All tensors are (T, B, C, H, W).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, TypeVar

from torch import Tensor, nn

from spikebench.backbones.attention import (
    ATTENTION_CONVS,
    ATTENTIONS,
    Attention,
    AttentionConv,
    SpikeDrivenAttention,
)
from spikebench.backbones.folding import dense
from spikebench.backbones.layers import (
    SHORTCUTS,
    ConvNorm,
    Downsample,
    Factory,
    MembraneShortcut,
    ResidualBlock,
    Shortcut,
    per_frame,
)
from spikebench.backbones.zoo import FeatureInfo, register_backbone, to_time_first
from spikebench.neurons import LIF, NeuronName, neuron_factory
from spikebench.registry import unknown_name

Choice = TypeVar("Choice")

FIRING_CURRENT = 2.0
"""What makes a LIF with tau = 2 and threshold 1 fire in its first time step."""
ATTENTION_CURRENT = 1.25
"""Where Q (K^T V), which grows with the tokens, starts neither silent at 32x32 pixels nor, at
512x512, so far above the threshold that its surrogate gradient is exactly 0."""


class SepConv(nn.Module):
    """Spiking separable convolution: SN, pw, BN, SN, dw 7x7, pw, BN.

    Nothing stands between the depthwise and the second pointwise convolution: together they are one
    linear map of spikes.

    Args:
        dim: channels.
        expansion: of the channels in between.
        neuron: makes a neuron.
        front: makes the first layer, a neuron, or `nn.Identity` where the input is spikes.
    """

    can_fuse = True

    def __init__(
        self, dim: int, expansion: int = 2, neuron: Factory = LIF, front: Factory = LIF
    ) -> None:
        super().__init__()
        hidden = expansion * dim
        self.lif1 = front()
        self.pw1 = ConvNorm(dim, hidden)
        self.lif2 = neuron()
        self.dw = nn.Conv2d(hidden, hidden, 7, padding=3, groups=hidden, bias=False)
        self.pw2 = ConvNorm(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """What the branch reads, `(T, B, dim, H, W)`, to its current, of the same shape."""
        spikes = self.pw1(self.lif1(x), self.lif2)
        return self.pw2(per_frame(self.dw, spikes))

    def deployed(self, fold_norms: bool, fuse: bool) -> nn.Module:
        """The last two convolutions as one dense 7x7; see `spikebench.inference.deploy`."""
        if fuse and not isinstance(self.dw, nn.Identity):  # fused before
            self.pw2.conv = dense(self.dw, self.pw2.conv)
            self.set_submodule("dw", nn.Identity())
        return self


class ChannelConv(nn.Module):
    """Channel mixer of the conv blocks: twice SN, conv 3x3, BN. Arguments as in `SepConv`."""

    def __init__(
        self, dim: int, expansion: int = 4, neuron: Factory = LIF, front: Factory = LIF
    ) -> None:
        super().__init__()
        self.lif1 = front()
        self.conv1 = ConvNorm(dim, expansion * dim, 3)
        self.lif2 = neuron()
        self.conv2 = ConvNorm(expansion * dim, dim, 3)

    def forward(self, x: Tensor) -> Tensor:
        """What the branch reads, `(T, B, dim, H, W)`, to its current, of the same shape."""
        return self.conv2(self.conv1(self.lif1(x), self.lif2))


class SpikingMLP(nn.Module):
    """Channel mixer of the transformer blocks: twice SN, pw with bias, BN. As `SepConv`."""

    def __init__(
        self, dim: int, expansion: int = 4, neuron: Factory = LIF, front: Factory = LIF
    ) -> None:
        super().__init__()
        self.lif1 = front()
        self.fc1 = ConvNorm(dim, expansion * dim, bias=True)
        self.lif2 = neuron()
        self.fc2 = ConvNorm(expansion * dim, dim, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """What the branch reads, `(T, B, dim, H, W)`, to its current, of the same shape."""
        return self.fc2(self.fc1(self.lif1(x), self.lif2))


class ConvBlock(ResidualBlock):
    """A separable convolution, a channel mixer, or both.

    Args:
        dim: channels.
        neuron: makes a neuron.
        shortcut: what joins a branch to its input.
        mlp_ratio: expansion of the channel mixer.
        sep_conv: whether there is a separable convolution.
        channel_conv: whether there is a channel mixer.
        **place: `last` and `drop_path` of `ResidualBlock`.
    """

    def __init__(
        self,
        dim: int,
        neuron: Factory,
        shortcut: type[Shortcut],
        mlp_ratio: int = 4,
        sep_conv: bool = True,
        channel_conv: bool = True,
        **place: Any,
    ) -> None:
        front = shortcut.in_front(neuron)
        branches: dict[str, nn.Module] = {}
        if sep_conv:
            branches["sep_conv"] = SepConv(dim, 2, neuron, front)
        if channel_conv:
            branches["channel_conv"] = ChannelConv(dim, mlp_ratio, neuron, front)
        super().__init__(branches, partial(shortcut, neuron), **place)


class TransformerBlock(ResidualBlock):
    """Spike-driven self-attention and an MLP.

    Args:
        dim: channels.
        neuron: makes a neuron.
        shortcut: what joins a branch to its input.
        mlp_ratio: expansion of the MLP.
        attention: makes the attention, given `dim`, `neuron` and `front`.
        **place: `last` and `drop_path` of `ResidualBlock`.
    """

    def __init__(
        self,
        dim: int,
        neuron: Factory,
        shortcut: type[Shortcut],
        mlp_ratio: int,
        attention: Factory,
        **place: Any,
    ) -> None:
        front = shortcut.in_front(neuron)
        branches = {
            "attn": attention(dim, neuron=neuron, front=front),
            "mlp": SpikingMLP(dim, mlp_ratio, neuron, front),
        }
        super().__init__(branches, partial(shortcut, neuron), **place)


class ShortcutWithMap(nn.Module):
    """The end of a stage that carries spikes on: it also returns the membrane x + f, its map."""

    def __init__(self, shortcut: Shortcut) -> None:
        super().__init__()
        self.shortcut = shortcut

    def forward(self, x: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
        return x + current, self.shortcut(x, current)


def _end_of_stage(join: Callable[[], Shortcut]) -> nn.Module:
    shortcut = join()
    return ShortcutWithMap(shortcut) if shortcut.carries_spikes else shortcut


class Stage(nn.Module):
    """A downsample and the blocks at its resolution.

    Args:
        downsample: the first layer.
        lif: what stands behind it: a neuron where the blocks carry spikes.
        blocks: of one kind.
    """

    def __init__(self, downsample: Downsample, lif: nn.Module, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.downsample = downsample
        self.lif = lif
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """What the stage before carried on to the stage's map, and the spikes it carries on."""
        return self.blocks(self.lif(self.downsample(x)))


class MetaSpikeformer(nn.Module):
    """Meta-SpikeFormer without its classifier.

    Args:
        embed_dims: channels of stages 2 to 5; stage 1 has half of the first.
        depths: blocks of stages 1 to 5; the first three hold convolution blocks.
        num_heads: attention heads of the transformer blocks. To sdsa1 and sdsa2, which work channel
            by channel, it makes no difference.
        mlp_ratio: expansion of the channel mixers.
        time_steps: T; an image is repeated T times.
        in_channels: channels of the input: 3 for images, 2 for event frames.
        norm_bias: initial bias of the batch norms that neurons read. At T = 1 a neuron fires where
            its input reaches 2: with a bias of 0 that is 2 % of them at first, with 2 it is half,
            which trains much faster from scratch. Queries, keys and values start with 1.25 at most.
        attention: spike-driven self-attention: sdsa1 is Q (x) SN(sum(K (x) V)), sdsa2
            Q (x) SN(sum(K)), sdsa3 SN(Q (K^T V)), and sdsa4 sdsa3 with a learnt threshold.
        attention_conv: what makes Q, K, V and the output: a re-parameterisable 3x3, a plain 3x3 or
            a plain 1x1 convolution.
        shortcut: what residuals add: membranes, spikes (spike-element-wise), or spikes and a
            current, from whose sum a neuron fires (vanilla).
        sep_conv: whether convolution blocks have the separable convolution.
        channel_conv: whether convolution blocks have the channel mixer.
        neuron: every neuron, by name or as a function, of the keywords `threshold` and
            `learn_threshold`, that makes one.
        drop_path: rate of stochastic depth at the last block, growing linearly from 0 at the first.
        grad_checkpointing: whether the backward pass computes the branches of blocks again instead
            of keeping what is inside them: less memory, more time, the same gradients.

    Raises:
        UnknownNameError: an option has no such value; the message suggests near ones.
        ValueError: the sizes do not fit.
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
        attention: Attention = "sdsa3",
        attention_conv: AttentionConv = "rep",
        shortcut: Annotated[str, SHORTCUTS] = "membrane",
        sep_conv: bool = True,
        channel_conv: bool = True,
        neuron: NeuronName | Callable[..., nn.Module] = "lif",
        drop_path: float = 0.0,
        grad_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        _check_sizes(
            embed_dims=embed_dims,
            depths=depths,
            num_heads=(num_heads,),
            mlp_ratio=(mlp_ratio,),
            time_steps=(time_steps,),
            in_channels=(in_channels,),
        )
        if not 0 <= drop_path < 1:
            raise ValueError(f"drop_path={drop_path}; expected at least 0 and less than 1")
        if not (sep_conv or channel_conv):
            raise ValueError("sep_conv and channel_conv are both False; blocks need one of them")
        self.time_steps = time_steps
        make_neuron = neuron_factory(neuron, time_steps)
        shortcut_type = _choose("shortcut", shortcut, SHORTCUTS)
        make_attention: Factory = partial(
            _choose("attention", attention, ATTENTIONS),
            num_heads=num_heads,
            conv=_choose("attention_conv", attention_conv, ATTENTION_CONVS),
        )
        shared: dict[str, Any] = {
            "neuron": make_neuron,
            "shortcut": shortcut_type,
            "mlp_ratio": mlp_ratio,
        }
        conv_block: Factory = partial(
            ConvBlock, sep_conv=sep_conv, channel_conv=channel_conv, **shared
        )
        transformer_block: Factory = partial(TransformerBlock, attention=make_attention, **shared)
        rates = iter(drop_path * i / (sum(depths) - 1) for i in range(sum(depths)))
        dims = (in_channels, embed_dims[0] // 2, *embed_dims)
        stages = []
        for index, (dim_in, dim, depth) in enumerate(zip(dims, dims[1:], depths, strict=False)):
            stem, last = index == 0, index == len(depths) - 1
            kernel, front = (7, nn.Identity) if stem else (3, shortcut_type.in_front(make_neuron))
            downsample = Downsample(dim_in, dim, kernel, self.strides[index], front)
            block = conv_block if index < 3 else transformer_block
            join = partial(shortcut_type, make_neuron)
            # nothing but heads reads the last stage: no neuron there
            end: Factory = MembraneShortcut if last else partial(_end_of_stage, join)
            blocks = [
                block(dim, last=end if i == depth - 1 else join, drop_path=next(rates))
                for i in range(depth)
            ]
            stages.append(Stage(downsample, shortcut_type.behind(make_neuron)(), blocks))
        self.stages = nn.ModuleList(stages)
        self.feature_info = [
            FeatureInfo(dim, math.prod(self.strides[: index + 1]))
            for index, dim in enumerate(dims[1:])
        ]
        self.set_grad_checkpointing(grad_checkpointing)
        self._initialise(norm_bias, shortcut_type.carries_spikes)

    def _initialise(self, norm_bias: float, carries_spikes: bool) -> None:
        """Set the biases of the batch norms that neurons read, and of the last one."""
        for module in self.modules():
            if isinstance(module, Downsample):
                nn.init.constant_(module.norm.bias, norm_bias)
            elif isinstance(module, ResidualBlock):
                for branch in module.branches():
                    *inner, last = (m.norm for m in branch.modules() if isinstance(m, ConvNorm))
                    for norm in [*inner, last] if carries_spikes else inner:
                        nn.init.constant_(norm.bias, norm_bias)
            elif isinstance(module, SpikeDrivenAttention):
                for name in ("q", "k", "v"):
                    if hasattr(module, name):
                        bias = min(norm_bias, ATTENTION_CURRENT)
                        nn.init.constant_(getattr(module, name).norm.bias, bias)
        # The last map starts where the LIF of a head fires. Otherwise that LIF, behind the spatial
        # mean, is silent at T = 1, and the gradient of the classifier's weight is exactly zero.
        carried = 0.0 if carries_spikes else norm_bias
        nn.init.constant_(last.bias, FIRING_CURRENT - carried)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Switch gradient checkpointing on or off; named as in timm's models."""
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                module.grad_checkpointing = enable

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
            membrane, x = x if isinstance(x, tuple) else (x, x)
            maps.append(membrane)
        return tuple(maps)


def _choose(option: str, value: str, known: Mapping[str, Choice]) -> Choice:
    if value not in known:
        raise unknown_name(option, value, known)
    return known[value]


def _check_sizes(**sizes: Sequence[int]) -> None:
    embed_dims, depths = tuple(sizes["embed_dims"]), tuple(sizes["depths"])
    if len(embed_dims) != 4 or len(depths) != 5:
        raise ValueError(
            f"embed_dims={embed_dims} and depths={depths}; "
            "expected 4 widths (stages 2 to 5) and 5 depths (stages 1 to 5)"
        )
    for name, numbers in sizes.items():
        if not all(isinstance(number, int) and number >= 1 for number in numbers):
            given = ", ".join(map(str, numbers))
            raise ValueError(f"{name}={given}; expected whole numbers of at least 1")
    if embed_dims[0] % 2:
        raise ValueError(f"embed_dims={embed_dims}; the first must be even: stage 1 has half of it")


@register_backbone
def meta_spikeformer_15m(
    embed_dims: Sequence[int] = (64, 128, 256, 360), **options
) -> MetaSpikeformer:
    """Meta-SpikeFormer 15M of the paper: 15,112,208 parameters with 1000 classes."""
    return MetaSpikeformer(embed_dims, **options)


@register_backbone
def meta_spikeformer_31m(
    embed_dims: Sequence[int] = (96, 192, 384, 480), **options
) -> MetaSpikeformer:
    """Meta-SpikeFormer 31M of the paper: 31,333,864 parameters with 1000 classes."""
    return MetaSpikeformer(embed_dims, **options)


@register_backbone
def meta_spikeformer_55m(
    embed_dims: Sequence[int] = (128, 256, 512, 640), **options
) -> MetaSpikeformer:
    """Meta-SpikeFormer 55M of the paper: 55,350,248 parameters with 1000 classes."""
    return MetaSpikeformer(embed_dims, **options)


@register_backbone
def meta_spikeformer_nano(
    embed_dims: Sequence[int] = (16, 48, 96, 160),
    depths: Sequence[int] = (1, 1, 1, 2, 1),
    num_heads: int = 4,
    norm_bias: float = 2.0,
    **options,
) -> MetaSpikeformer:
    """A small Meta-SpikeFormer for small images and machines without accelerators."""
    return MetaSpikeformer(embed_dims, depths, num_heads, norm_bias=norm_bias, **options)

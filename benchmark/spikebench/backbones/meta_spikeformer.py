"""Meta-SpikeFormer: the backbone of "Spike-driven Transformer V2" (Yao et al., ICLR 2024).

arXiv 2404.03663. Five stages at strides 2, 4, 8, 16, 16: three of spiking convolution blocks, two
of spiking transformer blocks. As published, membrane shortcuts join them: residuals add real-valued
membranes, and every weight is met by spikes (separable and re-parameterisable convolutions are
linear maps of spikes). The other designs that the paper compares are arguments. All tensors are
(T, B, C, H, W).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from torch import Tensor, nn

from spikebench.backbones.attention import (
    ATTENTION_CONVS,
    ATTENTIONS,
    Attention,
    AttentionConv,
    SpikeDrivenAttention,
)
from spikebench.backbones.blocks import (
    SHORTCUTS,
    Block,
    ConvBlock,
    Downsample,
    MembraneShortcut,
    ShortcutName,
    Stage,
    TransformerBlock,
    Wiring,
)
from spikebench.backbones.layers import ConvNorm, RepConvNorm
from spikebench.backbones.zoo import FeatureInfo, register_backbone, to_time_first
from spikebench.neurons import NeuronName, neuron_factory
from spikebench.registry import unknown_name

Choice = TypeVar("Choice")

CONV_NORMS = (ConvNorm, RepConvNorm)
FIRING_CURRENT = 2.0
"""What makes a LIF with tau = 2 and threshold 1 fire in its first time step."""
ATTENTION_CURRENT = 1.25
"""Where Q (K^T V), which grows with the tokens, starts neither silent at 32x32 pixels nor, at
512x512, so far above the threshold that its surrogate gradient is exactly 0."""


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
        shortcut: ShortcutName = "membrane",
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
        wiring = Wiring(
            neuron_factory(neuron, time_steps), _choose("shortcut", shortcut, SHORTCUTS)
        )
        conv_block = partial(ConvBlock, sep_conv=sep_conv, channel_conv=channel_conv)
        transformer_block = partial(
            TransformerBlock,
            attention=partial(
                _choose("attention", attention, ATTENTIONS),
                num_heads=num_heads,
                conv=_choose("attention_conv", attention_conv, ATTENTION_CONVS),
            ),
        )
        dims = (embed_dims[0] // 2, *embed_dims)
        rates = iter(drop_path * i / (sum(depths) - 1) for i in range(sum(depths)))
        stages = []
        self.feature_info: list[FeatureInfo] = []
        for index, (dim, depth) in enumerate(zip(dims, depths, strict=True)):
            stem, last = index == 0, index == len(dims) - 1
            downsample = Downsample(
                in_channels if stem else dims[index - 1],
                dim,
                self.strides[index],
                stem,
                wiring.front,
            )
            block: Callable[..., nn.Module] = conv_block if index < 3 else transformer_block
            ends: list[Callable[[], nn.Module]] = [wiring.join] * (depth - 1)
            ends.append(MembraneShortcut if last else wiring.end_of_stage)
            blocks = [block(dim, wiring, mlp_ratio, end=end, drop_path=next(rates)) for end in ends]
            stages.append(Stage(downsample, wiring.behind_downsample(), blocks))
            stride = math.prod(self.strides[: index + 1])
            self.feature_info.append(FeatureInfo(channels=dim, stride=stride))
        self.stages = nn.ModuleList(stages)
        self.set_grad_checkpointing(grad_checkpointing)
        self._initialise(norm_bias, wiring.shortcut.carries_spikes)

    def _initialise(self, norm_bias: float, carries_spikes: bool) -> None:
        for module in self.modules():
            if isinstance(module, Downsample):
                nn.init.constant_(module.norm.bias, norm_bias)
            elif isinstance(module, Block):
                for branch in module.branches():
                    *inner, last = (m.norm for m in branch.modules() if isinstance(m, CONV_NORMS))
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
            if isinstance(module, Block):
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
        raise ValueError(
            f"embed_dims={embed_dims}; the first must be even, for stage 1 has half of it"
        )


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

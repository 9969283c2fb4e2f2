"""Names of the published Meta-SpikeFormer code (BICLab/Spike-Driven-Transformer-V2) and ours."""

from __future__ import annotations

import re
from collections.abc import Callable

from spikebench.weights.published import LAYOUTS, PublishedLayout

_STAGES = {
    "downsample1_1": "stages.0.downsample",
    "ConvBlock1_1": "stages.0.blocks",
    "downsample1_2": "stages.1.downsample",
    "ConvBlock1_2": "stages.1.blocks",
    "downsample2": "stages.2.downsample",
    "downsample3": "stages.3.downsample",
    "block3": "stages.3.blocks",
    "downsample4": "stages.4.downsample",
    "block4": "stages.4.blocks",
}

_RENAMES: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"^ConvBlock2_(\d+)\.0", lambda m: f"stages.2.blocks.{int(m[1]) - 1}"),
    (rf"^({'|'.join(_STAGES)})\b", lambda m: _STAGES[m[1]]),
    (r"\.encode_(conv|lif)", r".\1"),
    (r"\.encode_bn", ".norm"),
    (r"\.Conv\.pwconv([12])", r".sep_conv.pw\1.conv"),
    (r"\.Conv\.bn([12])", r".sep_conv.pw\1.norm"),
    (r"\.Conv\.dwconv", ".sep_conv.dw"),
    (r"\.Conv\.lif([12])", r".sep_conv.lif\1"),
    (r"(blocks\.\d+)\.conv([12])", r"\1.channel_conv.conv\2.conv"),
    (r"(blocks\.\d+)\.bn([12])", r"\1.channel_conv.conv\2.norm"),
    (r"(blocks\.\d+)\.lif([12])", r"\1.channel_conv.lif\2"),
    (r"\.attn\.head_lif", ".attn.lif"),
    (r"\.(q|k|v|proj)_conv\.1\b", r".\1.norm"),
    (r"\.(q|k|v|proj)_conv\.0\.body\.0", r".\1.conv.pw1"),
    (r"\.(q|k|v|proj)_conv\.0\.body\.1\.bn", r".\1.conv.norm1"),
    (r"\.(q|k|v|proj)_conv\.0\.body\.2\.0", r".\1.conv.dw"),
    (r"\.(q|k|v|proj)_conv\.0\.body\.2\.1", r".\1.conv.pw2"),
    (r"\.(q|k|v|proj)_conv\.0\.body\.2\.2", r".\1.conv.norm2"),
    (r"\.mlp\.fc([12])_conv", r".mlp.fc\1.conv"),
    (r"\.mlp\.fc([12])_bn", r".mlp.fc\1.norm"),
    (r"\.mlp\.fc([12])_lif", r".mlp.lif\1"),
    (r"^stages", "backbone.stages"),
    (r"^head_kd\b", "distillation_head"),
]


def from_published(name: str) -> str:
    """The name in our `Classifier` of a published parameter, buffer or module.

    Example:
        >>> from_published("block3.0.attn.q_conv.0.body.1.bn.weight")
        'backbone.stages.3.blocks.0.attn.q.conv.norm1.weight'
        >>> from_published("ConvBlock2_2.0.Conv.lif1")
        'backbone.stages.2.blocks.1.sep_conv.lif1'
    """
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


LAYOUTS.register(
    PublishedLayout(
        markers=("downsample1_1.encode_conv.",),
        rename=from_published,
        # pointwise convolutions over tokens, (O, I, 1), are ours over pixels, (O, I, 1, 1)
        reshape=lambda tensor: tensor[..., None] if tensor.dim() == 3 else tensor,
    ),
    name="meta_spikeformer",
)

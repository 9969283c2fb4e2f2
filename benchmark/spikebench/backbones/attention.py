"""The spike-driven self-attentions (SDSA) that Spike-driven Transformer V2 compares.

Q, K and V are spikes, SN is a spiking neuron that fires at 0.5, (x) the elementwise product, and
sum adds up over all tokens, that is over the pixels of a map; no softmax anywhere:

    sdsa1    Q (x) SN(sum(K (x) V))     linear in tokens and channels
    sdsa2    Q (x) SN(sum(K))           the same without V and its parameters
    sdsa3    SN(Q (K^T V) * 0.125)      linear in tokens, quadratic in the channels of a head
    sdsa4    SN(Q (K^T V) * 0.125)      the threshold of SN is learnt

The first is the attention of Spike-driven Transformer (Yao et al., NeurIPS 2023, arXiv 2307.01694),
whose published code gives the neuron its threshold; the others are those of V2 (Yao et al., ICLR
2024, arXiv 2404.03663). Products of spikes are masks or sums of spikes: additions suffice. Where
neurons give integers up to D, what SN reads is in units of D, so that it stays near the threshold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from torch import Tensor, nn

from spikebench.backbones.layers import ConvNorm, Mask, MatMul
from spikebench.backbones.rep_conv import RepConvNorm
from spikebench.neurons import spike_levels

ATTENTION_CONVS: dict[str, Callable[[int], nn.Module]] = {
    "rep": RepConvNorm,
    "conv3x3": lambda dim: ConvNorm(dim, dim, 3),
    "conv1x1": lambda dim: ConvNorm(dim, dim, 1),
}
"""What makes Q, K, V and the output of an attention: convolution and batch norm."""

AttentionConv = Annotated[str, ATTENTION_CONVS]


class SpikeDrivenAttention(nn.Module):
    """What the variants share: SN, convolutions that make Q, K and V, SN, a mix, a convolution.

    Args:
        dim: channels.
        num_heads: into how many heads matrix products split the channels.
        neuron: makes a neuron, given its `threshold` and whether to `learn_threshold`.
        front: makes the neuron that reads the input, or `nn.Identity` where the input is spikes.
        conv: makes a convolution with batch norm, given the channels; of `ATTENTION_CONVS`. Called
            with currents and a neuron, it gives the neuron's spikes.
    """

    has_values = True
    learn_threshold = False

    def __init__(
        self,
        dim: int,
        num_heads: int,
        neuron: Callable[..., nn.Module],
        front: Callable[[], nn.Module],
        conv: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.lif = front()
        self.q, self.q_lif = conv(dim), neuron()
        self.k, self.k_lif = conv(dim), neuron()
        if self.has_values:
            self.v, self.v_lif = conv(dim), neuron()
        self.unit = 1 / (spike_levels(self.q_lif) or 1)
        self.attn_lif = neuron(threshold=0.5, learn_threshold=self.learn_threshold)
        self.proj = conv(dim)

    def forward(self, x: Tensor) -> Tensor:
        """What the branch reads, `(T, B, dim, H, W)`, to its current, of the same shape."""
        return self.proj(self.mix(self.lif(x)))

    def mix(self, x: Tensor) -> Tensor:
        """Spikes `(T, B, dim, H, W)` to spikes that have met those of other tokens."""
        raise NotImplementedError


class SDSA1(SpikeDrivenAttention):
    """Q (x) SN(sum(K (x) V)), channel by channel: the number of heads makes no difference."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.kv, self.qkv = Mask(), Mask()

    def mix(self, x: Tensor) -> Tensor:
        q, k, v = self.q(x, self.q_lif), self.k(x, self.k_lif), self.v(x, self.v_lif)
        counts = self.kv(k, v).sum((-2, -1), keepdim=True)
        return self.qkv(q, self.attn_lif(counts * self.unit**2))


class SDSA2(SpikeDrivenAttention):
    """Q (x) SN(sum(K)), channel by channel: the number of heads makes no difference."""

    has_values = False

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.qk = Mask()

    def mix(self, x: Tensor) -> Tensor:
        q, k = self.q(x, self.q_lif), self.k(x, self.k_lif)
        counts = k.sum((-2, -1), keepdim=True)
        return self.qk(q, self.attn_lif(counts * self.unit))


class SDSA3(SpikeDrivenAttention):
    """SN(Q (K^T V) * 0.125) in each head; the scale is the same whatever the head's size."""

    scale = 0.125

    def __init__(self, dim: int, num_heads: int, *args, **kwargs) -> None:
        if dim % num_heads:
            raise ValueError(
                f"{dim} channels cannot be split into {num_heads} heads; "
                "num_heads must divide the last two of embed_dims"
            )
        super().__init__(dim, num_heads, *args, **kwargs)
        self.kv, self.qkv = MatMul(), MatMul()

    def mix(self, x: Tensor) -> Tensor:
        # (T, B, heads, head size, tokens): tokens last, as the maps lie in memory
        q, k, v = (
            conv(x, lif).flatten(3).unflatten(2, (self.num_heads, -1))
            for conv, lif in ((self.q, self.q_lif), (self.k, self.k_lif), (self.v, self.v_lif))
        )
        kv = self.kv(k, v.transpose(-1, -2))
        attended = self.qkv(q.transpose(-1, -2), kv).transpose(-1, -2)
        spikes = self.attn_lif(attended.flatten(2, 3) * (self.scale * self.unit**3))
        return spikes.unflatten(-1, x.shape[-2:])


class SDSA4(SDSA3):
    """SDSA-3 whose neuron learns its threshold, 0.5 at first."""

    learn_threshold = True


ATTENTIONS: dict[str, type[SpikeDrivenAttention]] = {
    "sdsa1": SDSA1,
    "sdsa2": SDSA2,
    "sdsa3": SDSA3,
    "sdsa4": SDSA4,
}

Attention = Annotated[str, ATTENTIONS]

"""Each attention against its equation, token by token, on spikes that fire in it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from spikebench import build_backbone, profile_operations
from spikebench.backbones.attention import ATTENTION_CONVS, ATTENTIONS, SpikeDrivenAttention
from spikebench.neurons import ILIF, LIF

T, B, C, H, W, HEADS = 3, 2, 8, 3, 4, 2


def build(name: str, conv: str = "conv1x1", num_heads: int = HEADS) -> SpikeDrivenAttention:
    torch.manual_seed(0)
    attention = ATTENTIONS[name](C, num_heads, LIF, nn.Identity, ATTENTION_CONVS[conv]).double()
    for module in attention.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.bias, 1.5)
    return attention


def spikes(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(T, B, C, H, W, generator=generator) < 0.4).double()


def watch(attention: SpikeDrivenAttention) -> dict[str, Tensor]:
    """Q, K and V, and what the output convolution reads, of the next call."""
    seen: dict[str, Tensor] = {}
    for part in ("q", "k", "v"):
        if hasattr(attention, part):
            lif = attention.get_submodule(f"{part}_lif")
            lif.register_forward_hook(lambda m, args, out, part=part: seen.update({part: out}))
    attention.proj.register_forward_pre_hook(lambda m, args: seen.update(mixed=args[0]))
    return seen


def tokens(x: Tensor, head: int | None = None) -> Tensor:
    """(T, B, N, C), or the channels of one head."""
    x = x.flatten(3).transpose(2, 3)
    return x if head is None else x[..., head * C // HEADS : (head + 1) * C // HEADS]


def sdsa1(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    counts = sum((tokens(k)[:, :, n] * tokens(v)[:, :, n] for n in range(H * W)), torch.zeros(()))
    return tokens(q) * LIF(threshold=0.5)(counts)[:, :, None]


def sdsa2(q: Tensor, k: Tensor) -> Tensor:
    counts = sum((tokens(k)[:, :, n] for n in range(H * W)), torch.zeros(()))
    return tokens(q) * LIF(threshold=0.5)(counts)[:, :, None]


def sdsa3(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    heads = []
    for head in range(HEADS):
        scores = tokens(q, head) @ tokens(k, head).transpose(-1, -2)  # N x N: the other order
        heads.append(scores @ tokens(v, head))
    return LIF(threshold=0.5)(0.125 * torch.cat(heads, -1))


EQUATIONS = {"sdsa1": sdsa1, "sdsa2": sdsa2, "sdsa3": sdsa3, "sdsa4": sdsa3}


@pytest.mark.parametrize("name", ATTENTIONS)
def test_it_is_its_equation(name: str):
    attention = build(name)
    seen = watch(attention)
    attention(spikes())
    mixed = tokens(seen.pop("mixed"))
    assert torch.equal(mixed, EQUATIONS[name](**seen))
    assert 0.05 < mixed.mean() < 0.95
    assert set(seen) == ({"q", "k"} if name == "sdsa2" else {"q", "k", "v"})


@pytest.mark.parametrize("name", ATTENTIONS)
def test_the_neuron_of_the_attention_alone_fires_at_a_half(name: str):
    thresholds = {n: m.threshold for n, m in build(name).named_modules() if isinstance(m, LIF)}
    assert thresholds.pop("attn_lif") == 0.5
    assert set(thresholds.values()) == {1.0}


def test_only_matrix_products_split_channels_into_heads():
    for name in ATTENTIONS:
        one, two = (build(name, num_heads=heads)(spikes()) for heads in (1, 2))
        assert torch.equal(one, two) == (name in ("sdsa1", "sdsa2")), name


def test_sdsa4_is_sdsa3_until_its_threshold_has_learnt():
    third, fourth = build("sdsa3"), build("sdsa4")
    assert torch.equal(third(spikes()), fourth(spikes()))
    extra = dict(fourth.named_parameters()).keys() - dict(third.named_parameters()).keys()
    assert extra == {"attn_lif.learnt_threshold"}
    threshold = fourth.get_parameter("attn_lif.learnt_threshold")
    seen = watch(fourth)
    fourth(spikes()).square().sum().backward()
    assert threshold.grad is not None
    assert threshold.grad != 0
    rate = seen["mixed"].mean()
    with torch.no_grad():
        threshold.mul_(3)
        fourth(spikes())
    assert seen["mixed"].mean() < rate


@pytest.mark.parametrize("name", ATTENTIONS)
def test_integer_spikes_are_read_in_units_of_the_largest(name: str):
    """Else what the neuron reads grows with D cubed, and it always fires at its limit."""
    torch.manual_seed(0)
    attention = ATTENTIONS[name](C, HEADS, ILIF, nn.Identity, ATTENTION_CONVS["conv1x1"]).double()
    for neuron in (attention.q_lif, attention.k_lif, getattr(attention, "v_lif", nn.Identity())):
        neuron.register_forward_hook(lambda m, args, out: 4 * (out > 1).double())  # D or nothing
    seen = watch(attention)
    counts = {}
    attention.attn_lif.register_forward_pre_hook(lambda m, args: counts.update(read=args[0]))
    attention(spikes())
    binary = {part: (value > 0).double() for part, value in seen.items() if part != "mixed"}
    expected = {}
    twin = build(name)
    twin.attn_lif.register_forward_pre_hook(lambda m, args: expected.update(read=args[0]))
    for part, value in binary.items():
        lif = twin.get_submodule(f"{part}_lif")
        lif.register_forward_hook(lambda m, args, out, value=value: value)
    twin(spikes())
    assert expected["read"].any()
    assert torch.equal(counts["read"], expected["read"])


@pytest.mark.parametrize(
    ("conv", "parameters"),
    [
        # two pw and a dw 3x3, and three batch norms
        ("rep", 2 * C * C + 9 * C + 3 * 2 * C),
        ("conv3x3", 9 * C * C + 2 * C),
        ("conv1x1", C * C + 2 * C),
    ],
)
def test_convolutions_have_the_parameters_of_their_form(conv: str, parameters: int):
    for name, convolutions in {"sdsa1": 4, "sdsa2": 3, "sdsa3": 4}.items():
        found = sum(p.numel() for p in build(name, conv).parameters())
        assert found == convolutions * parameters, name


@pytest.mark.parametrize(("conv", "reach"), [("rep", 1), ("conv3x3", 1), ("conv1x1", 0)])
def test_convolutions_reach_as_far_as_their_form(conv: str, reach: int):
    torch.manual_seed(0)
    layer = ATTENTION_CONVS[conv](C).double().eval()
    x = torch.zeros(1, 1, C, 5, 5, dtype=torch.float64)
    silent = layer(x)
    x[..., 2, 2] = 1
    changed = (layer(x) != silent).any(2)[0, 0].nonzero()
    assert changed.min() == 2 - reach
    assert changed.max() == 2 + reach


@pytest.mark.parametrize(
    ("attention", "products"), [("sdsa1", 0), ("sdsa2", 0), ("sdsa3", 2), ("sdsa4", 2)]
)
def test_operation_counts_name_the_matrix_products(attention: str, products: int):
    model = build_backbone(
        "meta_spikeformer_nano", embed_dims=(8, 8, 16, 16), depths=(1,) * 5, attention=attention
    )
    rows = profile_operations(model, [torch.randn(1, 3, 32, 32)]).rows
    found = [row.name.rpartition(".")[2] for row in rows if row.kind == "matmul"]
    assert found == ["kv", "qkv"] * products

"""Every option of Meta-SpikeFormer changes what it should, alone and beside every other one."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from itertools import combinations, product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spikebench import build_backbone, build_classifier, check_backbone
from spikebench.backbones.attention import ATTENTION_CONVS, ATTENTIONS
from spikebench.backbones.layers import SHORTCUTS
from spikebench.backbones.meta_spikeformer import MetaSpikeformer
from spikebench.neurons import LIF, PSN, Neuron
from spikebench.registry import NEURONS, UnknownNameError

TINY = {"embed_dims": (8, 8, 16, 16), "depths": (1,) * 5, "num_heads": 2, "mlp_ratio": 2}


def slow_lif(threshold: float = 1.0, learn_threshold: bool = False) -> LIF:
    return LIF(tau=2.5, threshold=threshold, learn_threshold=learn_threshold)


CHANGES: list[dict[str, Any]] = [
    {"attention": "sdsa1"},
    {"attention": "sdsa2"},
    {"attention": "sdsa4"},
    {"attention_conv": "conv3x3"},
    {"attention_conv": "conv1x1"},
    {"shortcut": "sew"},
    {"shortcut": "vanilla"},
    {"sep_conv": False},
    {"channel_conv": False},
    {"neuron": "if"},
    {"neuron": "plif"},
    {"neuron": "ilif"},
    {"neuron": "psn"},
    {"neuron": slow_lif},
    {"drop_path": 0.5},
    {"grad_checkpointing": True},
    {"in_channels": 2},
    {"embed_dims": (12, 8, 20, 16)},
    {"depths": (2, 1, 2, 1, 2)},
    {"num_heads": 4},
    {"mlp_ratio": 3},
    {"norm_bias": 1.0},
]
SAME_PARAMETERS: list[dict[str, Any]] = [
    {"attention": "sdsa1"},
    {"shortcut": "sew"},
    {"shortcut": "vanilla"},
    {"neuron": "if"},
    {"neuron": "ilif"},
    {"neuron": slow_lif},
    {"drop_path": 0.5},
    {"num_heads": 4},
]


def named(value: object) -> str:
    """A name that is the same in every process: functions without their addresses."""
    return re.sub(r"<function (\S+) at \w+>", r"\1", str(value))


every_change = pytest.mark.parametrize("change", CHANGES, ids=named)


def tiny(**options) -> MetaSpikeformer:
    torch.manual_seed(0)
    options = {"time_steps": 2, **TINY, **options}
    return build_backbone("meta_spikeformer_nano", **options).double()


def firing(model: nn.Module) -> nn.Module:
    """Give norms uneven weights, as training does: then no layer of a tiny network is silent."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 1.0, 3.0)
            nn.init.uniform_(module.bias, -0.5, 1.0)
    return model


def images(channels: int = 3, batch: int = 2, size: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, channels, size, size, generator=generator, dtype=torch.float64)


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


class TestParameters:
    """Counted by hand: weights and biases of convolutions, two numbers a channel of norms."""

    @staticmethod
    def by_hand(
        embed_dims: Sequence[int],
        depths: Sequence[int] = (1, 1, 2, 6, 2),
        r: int = 4,
        in_channels: int = 3,
        sep_conv: bool = True,
        channel_conv: bool = True,
        convolutions: int = 4,
        convolution: Callable[[int], int] = lambda d: 2 * d * d + 9 * d + 6 * d,
    ) -> int:
        dims = [embed_dims[0] // 2, *embed_dims]
        total = 49 * in_channels * dims[0] + dims[0] + 2 * dims[0]
        total += sum(9 * a * b + b + 2 * b for a, b in zip(dims, dims[1:], strict=False))
        for d, depth in zip(dims[:3], depths[:3], strict=True):
            sep = 2 * d * d + 4 * d + 49 * 2 * d + 2 * d * d + 2 * d
            channel = 9 * d * r * d + 2 * r * d + 9 * r * d * d + 2 * d
            total += depth * (sep * sep_conv + channel * channel_conv)
        for d, depth in zip(dims[3:], depths[3:], strict=True):
            mlp = (d * r * d + r * d + 2 * r * d) + (r * d * d + d + 2 * d)
            total += depth * (convolutions * convolution(d) + mlp)
        return total

    def test_the_paper_s_models(self):
        assert self.by_hand((64, 128, 256, 360)) == 14_751_208
        assert self.by_hand((128, 256, 512, 640)) == 54_709_248

    @pytest.mark.parametrize(
        ("options", "hand"),
        [
            ({}, {}),
            ({"embed_dims": (12, 8, 20, 16)}, {"embed_dims": (12, 8, 20, 16)}),
            ({"depths": (2, 1, 3, 1, 2)}, {"depths": (2, 1, 3, 1, 2)}),
            ({"mlp_ratio": 3}, {"r": 3}),
            ({"in_channels": 2}, {"in_channels": 2}),
            ({"sep_conv": False}, {"sep_conv": False}),
            ({"channel_conv": False}, {"channel_conv": False}),
            ({"attention": "sdsa1"}, {}),
            ({"attention": "sdsa2"}, {"convolutions": 3}),
            ({"attention_conv": "conv3x3"}, {"convolution": lambda d: 9 * d * d + 2 * d}),
            ({"attention_conv": "conv1x1"}, {"convolution": lambda d: d * d + 2 * d}),
            (
                {"attention": "sdsa2", "attention_conv": "conv1x1"},
                {"convolutions": 3, "convolution": lambda d: d * d + 2 * d},
            ),
            ({"shortcut": "sew"}, {}),
            ({"shortcut": "vanilla"}, {}),
            ({"neuron": "if"}, {}),
            ({"drop_path": 0.5, "grad_checkpointing": True, "num_heads": 4}, {}),
        ],
        ids=named,
    )
    def test_options(self, options: dict, hand: dict):
        expected = {"embed_dims": TINY["embed_dims"], "depths": TINY["depths"], "r": 2, **hand}
        assert count(tiny(**options)) == self.by_hand(**expected)

    @pytest.mark.parametrize("time_steps", [1, 3])
    def test_neurons_that_learn(self, time_steps: int):
        plain = tiny(time_steps=time_steps)
        neurons = sum(isinstance(module, Neuron) for module in plain.modules())
        assert neurons == 4 + 3 * 4 + 2 * (5 + 2)  # downsamples, blocks of stages 1-3, of 4-5
        each = {"plif": 1, "psn": time_steps**2 + time_steps, "lif": 0, "if": 0, "ilif": 0}
        for name, parameters in each.items():
            found = count(tiny(time_steps=time_steps, neuron=name))
            assert found == count(plain) + neurons * parameters, name

    def test_sdsa4_learns_one_threshold_a_block(self):
        assert count(tiny(attention="sdsa4", depths=(1, 1, 1, 3, 2))) == 5 + count(
            tiny(depths=(1, 1, 1, 3, 2))
        )


@every_change
def test_it_keeps_the_contract(change: dict):
    report = check_backbone("meta_spikeformer_nano", **{**TINY, **change})
    assert report.ok, report


@every_change
def test_it_trains_one_step(change: dict):
    torch.manual_seed(0)
    options = {"time_steps": 2, **TINY, **change}
    model = build_classifier("meta_spikeformer_nano", 4, **options).double()
    for module in model.modules():
        if isinstance(module, PSN):  # starts at random, and may never fire
            nn.init.eye_(module.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    logits = model(images(change.get("in_channels", 3), batch=4, size=128))
    F.cross_entropy(logits, torch.arange(4)).backward()
    optimizer.step()
    after = dict(model.named_parameters())
    assert all(p.isfinite().all() for p in after.values())
    weights = [name for name in after if name.endswith("weight")]
    assert [name for name in weights if torch.equal(after[name], before[name])] == []


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in model.state_dict().items()}


def test_all_others_change_the_parameters():
    alike = [change for change in CHANGES if shapes(tiny(**change)) == shapes(tiny())]
    # the initial values, and the memory of training, as its own tests say
    others: list[dict[str, Any]] = [{"norm_bias": 1.0}, {"grad_checkpointing": True}]
    assert [change for change in alike if change not in others] == SAME_PARAMETERS


@pytest.mark.parametrize("change", SAME_PARAMETERS, ids=named)
def test_it_changes_the_maps_of_the_same_weights(change: dict):
    default, changed = firing(tiny()), tiny(**change)
    changed.load_state_dict(default.state_dict())
    found, reference = changed(images(size=64)), default(images(size=64))
    differ = [not torch.allclose(a, b) for a, b in zip(found, reference, strict=True)]
    in_attention = set(change) & {"attention", "num_heads"}
    assert differ[1:] == [not in_attention, not in_attention, True, True]


def test_norm_bias_is_that_of_norms_that_neurons_read():
    for bias in (0.0, 1.0, 2.0):
        model = tiny(norm_bias=bias)
        norms = {n: m.bias for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
        read = ("downsample.norm", "pw1.norm", "conv1.norm", "fc1.norm")
        for name, values in norms.items():
            if name.endswith(read):
                assert values.unique().tolist() == [bias], name
            if name.endswith(("q.norm", "k.norm", "attn.v.norm")):
                assert values.unique().tolist() == [min(bias, 1.25)], name
        last = norms["stages.4.blocks.0.mlp.fc2.norm"]
        assert last.unique().tolist() == [2.0 - bias]


@pytest.mark.parametrize("size", [32, 128, 512])
def test_attention_of_the_nano_backbone_trains_at_any_size(size: int):
    """A neuron far from its threshold has a surrogate gradient of exactly 0."""
    torch.manual_seed(0)
    model = build_backbone("meta_spikeformer_nano")
    loss = sum(level.square().mean() for level in model(images(batch=1, size=size).float()))
    loss.backward()
    frozen = [name for name, weight in model.named_parameters() if not weight.grad.any()]
    assert frozen == []


def all_pairs(options: dict[str, list]) -> list[dict[str, Any]]:
    """Few combinations, in which any two values of two options occur together."""
    open_pairs = {
        ((a, x), (b, y))
        for a, b in combinations(options, 2)
        for x, y in product(range(len(options[a])), range(len(options[b])))
    }
    chosen = []
    while open_pairs:
        row: dict[str, int] = dict(min(open_pairs))
        for name, values in options.items():
            if name not in row:
                row[name] = max(
                    range(len(values)),
                    key=lambda v: sum(
                        tuple(sorted(((name, v), item), key=lambda i: list(options).index(i[0])))
                        in open_pairs
                        for item in row.items()
                    ),
                )
        ordered = [(name, row[name]) for name in options]
        open_pairs -= set(combinations(ordered, 2))
        chosen.append({name: options[name][index] for name, index in ordered})
    return chosen


COMBINATIONS = all_pairs(
    {
        "attention": list(ATTENTIONS),
        "attention_conv": list(ATTENTION_CONVS),
        "shortcut": list(SHORTCUTS),
        "neuron": NEURONS.names(),
        "blocks": [{}, {"sep_conv": False}, {"channel_conv": False}],
        "drop_path": [0.0, 0.4],
        "grad_checkpointing": [False, True],
        "in_channels": [3, 2],
        "time_steps": [1, 3],
        "sizes": [{}, {"embed_dims": (4, 12, 8, 16), "depths": (1, 2, 1, 1, 2), "num_heads": 1}],
    }
)


def test_all_pairs_are_few_and_all():
    assert len(COMBINATIONS) < 40
    pairs = {
        (a, str(row[a]), b, str(row[b])) for row in COMBINATIONS for a, b in combinations(row, 2)
    }
    sizes = [4, 3, 3, 5, 3, 2, 2, 2, 2, 2]
    assert len(pairs) == sum(math.prod(two) for two in combinations(sizes, 2))


@pytest.mark.parametrize("row", COMBINATIONS, ids=named)
def test_options_get_along(row: dict):
    row = dict(row)
    options = {**row.pop("blocks"), **row.pop("sizes"), **row}
    model = firing(tiny(**options))
    maps = model(images(row["in_channels"]))
    assert [(m.shape[0], m.shape[2], 32 // m.shape[3]) for m in maps] == [
        (row["time_steps"], info.channels, info.stride) for info in model.feature_info
    ]
    sum(m.square().mean() for m in maps).backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert [name for name, g in gradients.items() if g is None or not g.isfinite().all()] == []
    membranes = model.eval()(images(row["in_channels"]))
    assert not any(torch.equal(m, m.round()) for m in membranes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": "sdsa5"}, "sdsa5"),
        ({"attention_conv": "conv5x5"}, "conv5x5"),
        ({"shortcut": "none"}, "none"),
        ({"neuron": "lief"}, "lief"),
        ({"sep_conv": False, "channel_conv": False}, "sep_conv and channel_conv"),
        ({"drop_path": 1.0}, "drop_path=1.0"),
        ({"drop_path": -0.1}, "drop_path=-0.1"),
        ({"embed_dims": (9, 8, 16, 16)}, r"embed_dims=\(9, 8, 16, 16\)"),
        ({"embed_dims": (8, 8, 16)}, r"embed_dims=\(8, 8, 16\)"),
        ({"embed_dims": (8, 8, 16, 0)}, "embed_dims=8, 8, 16, 0"),
        ({"depths": (1, 1, 1, 1)}, r"depths=\(1, 1, 1, 1\)"),
        ({"num_heads": 3}, "3 heads"),
        ({"num_heads": 0}, "num_heads=0"),
        ({"mlp_ratio": 0.5}, "mlp_ratio=0.5"),
        ({"in_channels": 0}, "in_channels=0"),
    ],
    ids=named,
)
def test_what_has_no_meaning_is_refused_in_one_line(options: dict, message: str):
    with pytest.raises((ValueError, UnknownNameError), match=message) as caught:
        tiny(**options)
    assert "\n" not in str(caught.value)

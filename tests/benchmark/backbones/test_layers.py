"""Shortcuts against their equations, and stochastic depth."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from spikebench import build_backbone
from spikebench.backbones.layers import SHORTCUTS, Downsample, DropPath, ResidualBlock
from spikebench.backbones.meta_spikeformer import Stage
from spikebench.neurons import LIF, Neuron

TINY = {"embed_dims": (8, 8, 16, 16), "depths": (1, 2, 1, 2, 1), "mlp_ratio": 2}
SPIKING = [name for name, shortcut in SHORTCUTS.items() if shortcut.carries_spikes]


def tiny(**options) -> nn.Module:
    torch.manual_seed(0)
    return build_backbone("meta_spikeformer_nano", time_steps=2, **{**TINY, **options}).double()


def images(batch: int = 2, size: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, 3, size, size, generator=generator, dtype=torch.float64)


def record(modules: dict[str, nn.Module]) -> dict[str, tuple]:
    """Inputs and output of each module in the next call."""
    seen: dict[str, tuple] = {}
    for name, module in modules.items():
        module.register_forward_hook(
            lambda m, args, out, name=name: seen.update({name: (*args, out)})
        )
    return seen


EQUATIONS = {
    "membrane": lambda x, current: x + current,
    "sew": lambda x, current: x + LIF()(current),
    "vanilla": lambda x, current: LIF()(x + current),
}


@pytest.mark.parametrize("name", SHORTCUTS)
def test_a_shortcut_is_its_equation(name: str):
    x = torch.rand(3, 2, 4, 5, 5, dtype=torch.float64).round()
    current = 2 * torch.randn_like(x) + 1
    joined = SHORTCUTS[name](LIF)(x, current)
    assert torch.equal(joined, EQUATIONS[name](x, current))
    assert not torch.equal(joined, x)


@pytest.mark.parametrize("name", SHORTCUTS)
def test_blocks_are_joined_by_it(name: str):
    """Every branch but the last, behind which only heads read, passes on what the equation says."""
    model = tiny(shortcut=name)
    steps = {
        branch_name: (branch, block)
        for block_name, block in model.named_modules()
        if isinstance(block, ResidualBlock)
        for branch_name, branch in zip(
            (f"{block_name}.{key}" for key in block.shortcuts), block.branches(), strict=True
        )
    }
    branches = record({key: branch for key, (branch, _) in steps.items()})
    downsamples = record({f"stage{i}": s.downsample for i, s in enumerate(model.stages)})
    model(images())
    assert len(steps) == len(branches) == 14
    readers = [(key, branches[key][0]) for key in steps]
    # what is read next: by the next branch, or by the downsample of the next stage
    for (key, x), (following, read) in zip(readers, readers[1:], strict=False):
        stage = following.split(".")[1]
        if stage != key.split(".")[1]:
            read = downsamples[f"stage{stage}"][0]
        assert torch.equal(read, EQUATIONS[name](x, branches[key][-1])), key


@pytest.mark.parametrize("name", SHORTCUTS)
def test_a_map_is_the_last_sum_before_any_neuron(name: str):
    model = tiny(shortcut=name)
    seen = record({str(i): list(s.blocks[-1].branches())[-1] for i, s in enumerate(model.stages)})
    for index, features in enumerate(model(images())):
        x, current = seen[str(index)]
        assert torch.equal(features, x + current)
        assert not torch.equal(features, features.round())


@pytest.mark.parametrize(("name", "largest"), [("sew", 5), ("vanilla", 1)])
@pytest.mark.parametrize("drop_path", [0.0, 0.5])
def test_convolutions_read_whole_numbers(name: str, largest: int, drop_path: float):
    model = tiny(shortcut=name, drop_path=drop_path)
    names = {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    del names["stages.0.downsample.conv"]  # reads the image
    read = record({n: m for n, m in names.items() if not n.endswith((".pw2.conv", ".dw", ".pw2"))})
    model(images())
    assert len(read) > 20
    values = [x for x, _ in read.values()]
    assert all(torch.equal(x, x.round()) for x in values)
    assert max(x.max() for x in values) <= largest
    assert (max(x.max() for x in values) > 1) == (name == "sew")


def test_every_shortcut_has_as_many_neurons_and_parameters():
    with torch.device("meta"):
        models = [build_backbone("meta_spikeformer_15m", shortcut=name) for name in SHORTCUTS]
    assert [sum(isinstance(m, Neuron) for m in model.modules()) for model in models] == [76] * 3
    assert len({sum(p.numel() for p in model.parameters()) for model in models}) == 1


@pytest.mark.parametrize("name", SPIKING)
def test_neurons_stand_behind_norms_where_spikes_are_carried(name: str):
    model = tiny(shortcut=name)
    for module in model.modules():
        if isinstance(module, Stage):
            assert isinstance(module.lif, LIF)
        if isinstance(module, Downsample):
            assert isinstance(module.lif, nn.Identity)


@pytest.mark.parametrize("name", SPIKING)
def test_norms_behind_branches_start_with_the_bias_of_norms_that_neurons_read(name: str):
    model = build_backbone("meta_spikeformer_nano", norm_bias=1.25, shortcut=name)
    biases = [
        model.get_parameter(f"stages.{norm}.norm.bias").unique().tolist()
        for norm in ("0.downsample", "1.blocks.0.channel_conv.conv2", "3.blocks.0.attn.proj")
    ]
    assert biases == [[1.25]] * 3


class TestDropPath:
    def masks(self, rate: float, batch: int = 4000) -> Tensor:
        torch.manual_seed(0)
        return DropPath(rate)(torch.ones(3, batch, 2, 1, 2, dtype=torch.float64))

    @pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
    def test_samples_lose_a_branch_at_the_rate_and_the_mean_stays(self, rate: float):
        dropped = self.masks(rate)
        kept = dropped[0, :, 0, 0, 0]
        deviation = math.sqrt(rate * (1 - rate) / len(kept))
        assert (kept == 0).double().mean().item() == pytest.approx(rate, abs=4 * deviation)
        assert kept.mean().item() == pytest.approx(1, abs=4 * deviation / (1 - rate))
        assert kept[kept != 0].unique().tolist() == pytest.approx([1 / (1 - rate)])

    def test_a_sample_loses_it_at_all_time_steps_and_channels_or_at_none(self):
        dropped = self.masks(0.5)
        assert torch.equal(dropped, dropped[:1, :, :1, :1, :1].expand_as(dropped))

    def test_samples_are_independent(self):
        kept = self.masks(0.5)[0, :, 0, 0, 0] / 2
        both = (kept[1:] * kept[:-1]).mean().item()
        assert both == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / len(kept)))

    def test_calls_are_independent(self):
        torch.manual_seed(0)
        layer, x = DropPath(0.5), torch.ones(1, 64, 1)
        assert not torch.equal(layer(x), layer(x))

    def test_no_gradient_reaches_what_is_lost(self):
        torch.manual_seed(0)
        x = torch.randn(2, 16, 3, requires_grad=True)
        y = DropPath(0.25)(x)
        y.sum().backward()
        lost = (y == 0).all(-1)
        assert 0 < lost.sum() < lost.numel()
        assert torch.equal(x.grad == 0, lost[..., None].expand_as(x))
        assert x.grad[~lost].unique().tolist() == pytest.approx([4 / 3])

    def test_evaluation_and_a_rate_of_0_change_nothing_and_draw_nothing(self):
        x = torch.randn(2, 8, 3)
        state = torch.get_rng_state()
        assert DropPath(0.0)(x) is x
        assert DropPath(0.9).eval()(x) is x
        assert torch.equal(torch.get_rng_state(), state)

    def test_the_rate_grows_linearly_with_depth(self):
        model = tiny(drop_path=0.3)
        rates = [m.rate for m in model.modules() if isinstance(m, DropPath)]
        assert rates == pytest.approx([0.3 * i / 6 for i in range(7)])

    @pytest.mark.parametrize("shortcut", SHORTCUTS)
    def test_it_drops_branches_of_the_network_by_sample(self, shortcut: str):
        """What loses a branch passes on what it would without that branch's current."""
        model = tiny(drop_path=0.8, shortcut=shortcut)
        block = model.stages[3].blocks[1]
        seen = record({"attn": block.attn, "mlp": block.mlp})
        torch.manual_seed(0)
        model(images(8, size=128))  # enough tokens for attention to fire
        x, current = seen["attn"]
        rate = block.drop_path.rate
        lost = EQUATIONS[shortcut](x, torch.zeros_like(x))
        kept = EQUATIONS[shortcut](x, current / (1 - rate))
        found = seen["mlp"][0]
        outcomes = []
        for sample in range(8):
            is_lost = torch.equal(found[:, sample], lost[:, sample])
            close = torch.allclose(found[:, sample], kept[:, sample])
            assert is_lost != close
            outcomes.append(is_lost)
        assert 0 < sum(outcomes) < 8

    def test_evaluation_is_that_of_a_network_without_it(self):
        with_it, without = tiny(drop_path=0.5), tiny()
        without.load_state_dict(with_it.state_dict())
        pairs = zip(with_it.eval()(images()), without.eval()(images()), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)

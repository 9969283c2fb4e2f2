"""Layers of neurons between the layers of stock packages, and the spiking FPN of either."""

from __future__ import annotations

import math

import pytest
import torch
from mmengine.model import initialize
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from spikebench.registry import UnknownNameError
from spikebench.task import ConfigError
from spikebench_tasks.detection import registered as detection
from spikebench_tasks.openmmlab.spiking import Fire, SpikingConv2d, over_time
from spikebench_tasks.segmentation import registered as segmentation
from tests.tasks.openmmlab.by_hand import ByHand, enliven, membranes
from tests.tasks.openmmlab.spiking_contract import BATCH, Maps, SpikingContract

import mmdet.models  # isort: skip  (the operators come first)
import mmseg.models  # isort: skip

from spikebench_tasks.detection.heads import SpikingFPN as DetectionFPN  # isort: skip
from spikebench_tasks.segmentation.heads import SpikingFPN as SegmentationFPN  # isort: skip

assert detection
assert segmentation

CHANNELS, SIZES, WIDTH = [4, 6, 8, 10], [16, 8, 4, 4], 5
FPNS = [(DetectionFPN, mmdet.models.FPN), (SegmentationFPN, mmseg.models.FPN)]


def fired(currents: Tensor) -> Tensor:
    """Spikes of currents `(T, ...)`, by hand."""
    hand = ByHand(nn.Identity())
    return torch.stack([hand.fire("", now) for now in currents])


def spikes_of_a_constant(current: float, time_steps: int) -> int:
    """The membrane nears the current by half each step, and starts at 0 again where it fired."""
    if current <= 1:
        return 0
    period = math.ceil(-math.log2(1 - 1 / current) - 1e-12)
    return time_steps // period


class TestFire:
    def test_time_comes_first(self):
        x = membranes(3, 2, 4)
        assert over_time(x.flatten(0, 1), 3).equal(x)
        spikes = Fire(3)(x.flatten(0, 1))
        assert spikes.shape == (6, 4)
        assert over_time(spikes, 3).equal(fired(x))
        assert 0.1 < spikes.mean() < 0.9

    @pytest.mark.parametrize("current", [-3.0, 0.9, 1.0, 1.1, 1.3, 1.34, 1.9, 2.0, 5.0])
    @pytest.mark.parametrize("time_steps", [1, 2, 4, 7])
    def test_a_constant_current_fires_with_a_period(self, current: float, time_steps: int):
        spikes = Fire(time_steps)(torch.full((time_steps, 1), current, dtype=torch.float64))
        assert spikes.sum() == spikes_of_a_constant(current, time_steps)

    def test_nothing_is_kept(self):
        fire, x = Fire(2), membranes(2, 3)
        first = fire(x)
        fire(membranes(6, 3, seed=1))
        assert fire(x).equal(first)
        assert fire.state_dict() == {}

    def test_no_elements(self):
        x = torch.zeros(0, 4, 2, 2, requires_grad=True)
        spikes = Fire(3)(x)
        assert spikes.shape == (0, 4, 2, 2)
        spikes.sum().backward()
        assert x.grad.shape == x.shape

    def test_options_are_those_of_the_neuron(self):
        x = torch.tensor([[1.5], [0.5]])
        assert Fire(2, threshold=0.7)(x).flatten().tolist() == [1, 0]
        assert Fire(2, neuron="if")(x).flatten().tolist() == [1, 0]
        assert Fire(2, neuron="ilif", tau=2.0)(x).flatten().tolist() == [2, 0]
        assert Fire(4, neuron="psn").neuron.weight.shape == (4, 4)
        with pytest.raises(TypeError, match="no_such_option"):
            Fire(2, no_such_option=1)
        with pytest.raises(UnknownNameError, match="'plif'"):
            Fire(2, neuron="plf")

    def test_binary_steps_of_integers_would_be_more_time_steps(self):
        with pytest.raises(ConfigError, match=r"'ilif'.*'spike_driven': True"):
            Fire(2, neuron="ilif", spike_driven=True)


class TestSpikingConv2d:
    def test_it_convolves_spikes(self):
        layer = enliven(SpikingConv2d(4, 6, 3, stride=2, padding=1, time_steps=2))
        x = membranes(2, 3, 4, 8, 8)
        expected = F.conv2d(fired(x).flatten(0, 1), layer.weight, layer.bias, stride=2, padding=1)
        assert_close(layer(x.flatten(0, 1)), expected)

    def test_the_neuron_has_its_options(self):
        layer = SpikingConv2d(1, 1, 1, time_steps=1, neuron={"neuron": "if", "threshold": 3.0})
        nn.init.ones_(layer.weight)
        nn.init.zeros_(layer.bias)
        assert layer(torch.tensor([2.9, 3.0]).view(2, 1, 1, 1)).flatten().tolist() == [0, 1]

    def test_stock_initialisation_takes_it_for_a_convolution(self):
        layer = nn.Sequential(SpikingConv2d(64, 64, 3))
        initialize(layer, {"type": "Normal", "layer": "Conv2d", "std": 0.01, "bias": 7.0})
        assert layer[0].weight.std().item() == pytest.approx(0.01, rel=0.05)
        assert (layer[0].bias == 7).all()

    def test_its_weights_are_those_of_a_convolution(self):
        ours, stock = SpikingConv2d(2, 3, 1), nn.Conv2d(2, 3, 1)
        assert ours.load_state_dict(stock.state_dict()) is not None
        assert list(ours.state_dict()) == list(stock.state_dict())

    def test_it_reads_spikes_where_mmcv_folds_the_norm_into_it(self):
        from mmcv.cnn import ConvModule

        layer = enliven(
            ConvModule(
                4,
                6,
                1,
                conv_cfg={"type": "SpikingConv2d", "time_steps": 2},
                norm_cfg={"type": "BN"},
                act_cfg=None,
            )
        )
        x = membranes(6, 4, 5, 5)
        expected = layer(x)
        layer.turn_on_efficient_conv_bn_eval()
        assert layer.efficient_conv_bn_eval_forward is not None
        assert_close(layer(x), expected)


class FPNContract(SpikingContract):
    shapes = tuple((channels, size, size) for channels, size in zip(CHANNELS, SIZES, strict=True))
    keeps_time = True
    fpn: type[nn.Module]
    options: dict = {}

    def build(self, time_steps: int) -> nn.Module:
        options = {"num_outs": len(CHANNELS) + 1, **self.options}
        return self.fpn(in_channels=CHANNELS, out_channels=WIDTH, time_steps=time_steps, **options)

    def call(self, part: nn.Module, maps: Maps) -> Maps:
        return part(maps)

    def step(self, hand: ByHand, *maps: Tensor) -> Maps:
        sums = self.sums(hand, maps)
        outs = [hand.module(f"fpn_convs.{i}", x, padding=1) for i, x in enumerate(sums)]
        return (*outs, F.max_pool2d(outs[-1], 1, stride=2))

    def sums(self, hand: ByHand, maps: Maps) -> list[Tensor]:
        """Membranes summed from the top down, finest first."""
        laterals = [hand.module(f"lateral_convs.{i}", x) for i, x in enumerate(maps)]
        sums = [laterals.pop()]
        while laterals:
            below = laterals.pop()
            above = F.interpolate(sums[0], size=below.shape[2:], mode="nearest")
            sums.insert(0, below + above)
        return sums


class TestDetectionFPN(FPNContract):
    fpn = DetectionFPN


class TestSegmentationFPN(FPNContract):
    fpn = SegmentationFPN


class TestFPNWithNorm(FPNContract):
    fpn = SegmentationFPN
    options = {"norm_cfg": {"type": "BN"}}


class TestRetinaNetsFPN(FPNContract):
    """With two further levels, convolved from the last map."""

    fpn = DetectionFPN
    options = {"num_outs": len(CHANNELS) + 2, "add_extra_convs": "on_input"}

    def step(self, hand: ByHand, *maps: Tensor) -> Maps:
        sums, count = self.sums(hand, maps), len(CHANNELS)
        outs = [hand.module(f"fpn_convs.{i}", x, padding=1) for i, x in enumerate(sums)]
        further = hand.module(f"fpn_convs.{count}", maps[-1], padding=1, stride=2)
        last = hand.module(f"fpn_convs.{count + 1}", further, padding=1, stride=2)
        return (*outs, further, last)


@pytest.mark.parametrize(("spiking", "stock"), FPNS)
@pytest.mark.parametrize("options", [{}, {"norm_cfg": {"type": "BN"}}])
class TestLayout:
    def test_weights_of_the_stock_fpn_load(self, spiking, stock, options: dict):
        sizes = {"in_channels": CHANNELS, "out_channels": WIDTH, "num_outs": 5, **options}
        ours, theirs = spiking(time_steps=3, **sizes), stock(**sizes)
        shapes = {key: value.shape for key, value in theirs.state_dict().items()}
        assert {key: value.shape for key, value in ours.state_dict().items()} == shapes
        ours.load_state_dict(theirs.state_dict())

    def test_a_stock_initialisation_reaches_every_weight(self, spiking, stock, options: dict):
        """Xavier's uniform distribution, of which stock FPNs make use, has a known bound."""
        neck = spiking(in_channels=CHANNELS, out_channels=WIDTH, num_outs=4, **options)
        for weight in neck.parameters():
            nn.init.constant_(weight, 9.0)
        neck.init_weights()
        for name, weight in neck.named_parameters():
            if weight.dim() > 1:
                fans = (weight.shape[0] + weight.shape[1]) * weight[0, 0].numel()
                bound = math.sqrt(6 / fans)
                assert 0.8 * bound < weight.abs().max() <= bound, name
            elif name.endswith("conv.bias"):
                assert (weight == 0).all(), name


def share_that_fires(neck: nn.Module, maps: Maps) -> list[float]:
    """Of the neurons behind freshly initialised layers: before the 3x3, and behind them."""
    rates = []
    for conv in neck.fpn_convs:
        conv.conv.fire.register_forward_hook(lambda *call: rates.append(call[-1].mean().item()))
    outs = neck(maps)
    return rates + [Fire()(out).mean().item() for out in outs]


@pytest.mark.parametrize("fpn", [DetectionFPN, SegmentationFPN])
@pytest.mark.parametrize("norm", [None, {"type": "BN"}])
class TestInitialCurrent:
    CHANNELS, WIDTH = [32, 64], 128

    def rates(self, fpn, norm: dict | None, **options) -> list[float]:
        torch.manual_seed(0)
        neck = fpn(
            in_channels=self.CHANNELS, out_channels=self.WIDTH, num_outs=2, norm_cfg=norm, **options
        )
        neck.init_weights()
        neck.train()
        maps = tuple(2 + torch.randn(4, channels, 16, 16) for channels in self.CHANNELS)
        return share_that_fires(neck, maps)

    def test_without_it_hardly_a_neuron_fires(self, fpn, norm: dict | None):
        rates = self.rates(fpn, norm)
        assert len(rates) == 4
        # a sum of two norms, of variance 2, stands before the finer 3x3
        assert max(rates) < (0.1 if norm else 0.15), rates

    def test_with_2_half_of_them_fire_at_once(self, fpn, norm: dict | None):
        rates = self.rates(fpn, norm, initial_current=2.0)
        assert all(0.4 < rate < 0.6 for rate in rates), rates

    def test_it_changes_biases_and_nothing_else(self, fpn, norm: dict | None):
        states = []
        for current in (0.0, 2.0):
            torch.manual_seed(0)
            neck = fpn(
                in_channels=[4, 6, 8],
                out_channels=4,
                num_outs=3,
                norm_cfg=norm,
                initial_current=current,
            )
            neck.init_weights()
            states.append(neck.state_dict())
        layer = "bn" if norm else "conv"
        changed = {key for key in states[0] if not states[0][key].equal(states[1][key])}
        assert changed == {
            f"lateral_convs.2.{layer}.bias",
            *(f"fpn_convs.{level}.{layer}.bias" for level in range(3)),
        }
        assert all((states[1][key] == 2).all() for key in changed)


def test_a_level_does_not_depend_on_how_many_there_are():
    """The top of the pyramid is its lateral layer and its 3x3 alone."""
    neck = enliven(DetectionFPN(in_channels=CHANNELS, out_channels=WIDTH, num_outs=5, time_steps=3))
    maps = tuple(membranes(3 * BATCH, *shape, seed=i) for i, shape in enumerate(FPNContract.shapes))
    top = neck.fpn_convs[-1](neck.lateral_convs[-1](maps[-1]))
    assert_close(neck(maps)[3], top, rtol=0, atol=0)

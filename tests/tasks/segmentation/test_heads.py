"""Spiking decode heads of MMSegmentation, layer by layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from spikebench_tasks.segmentation import registered
from tests.tasks.openmmlab.by_hand import ByHand, enliven, membranes
from tests.tasks.openmmlab.spiking_contract import Maps, SpikingContract

assert registered  # the operators come before mmseg

from mmseg.models import FCNHead, FPNHead, UPerHead  # noqa: E402

from spikebench_tasks.segmentation.heads import SpikingFCNHead, SpikingFPNHead, SpikingUPerHead  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:mmseg")

WIDTH, CLASSES, DROPOUT = 6, 5, 0.25
STRIDES = [2, 4, 8, 16]
IN = [3, 4, 5, 7]
COMMON: dict[str, Any] = {
    "channels": WIDTH,
    "num_classes": CLASSES,
    "norm_cfg": {"type": "BN"},
    "dropout_ratio": DROPOUT,
    "align_corners": False,
}
EVERY = {"in_channels": IN, "in_index": [0, 1, 2, 3], **COMMON}
FPN = {"feature_strides": STRIDES, **EVERY}
UPER = {"pool_scales": (2, 3), **EVERY}
FCN = {"in_channels": IN[2], "in_index": 2, "num_convs": 2, "concat_input": True, **COMMON}


def larger(x: Tensor, size: Any) -> Tensor:
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


class DecodeContract(SpikingContract):
    shapes = tuple(
        (channels, 64 // stride, 64 // stride) for channels, stride in zip(IN, STRIDES, strict=True)
    )

    def call(self, part: nn.Module, maps: Maps) -> Maps:
        return (part(maps),)

    def test_channels_of_spikes_drop_out_in_training_before_the_classifier(self):
        head = enliven(self.build(3)).train()
        seen: list[Tensor] = []
        head.conv_seg.register_forward_hook(lambda *call: seen.append(call[1][0]))
        self.call(head, self.maps(3))
        values = seen[0].unique()
        assert_close(values, torch.tensor([0, 1 / (1 - DROPOUT)], dtype=values.dtype))

    def test_logits_are_those_of_images(self):
        (logits,) = self.call(enliven(self.build(3)), self.maps(3))
        assert logits.shape == (2, CLASSES, *self.shapes[0][1:])


class TestFPNHead(DecodeContract):
    def build(self, time_steps: int) -> nn.Module:
        return SpikingFPNHead(**FPN, time_steps=time_steps)

    def step(self, hand: ByHand, *maps: Tensor) -> Maps:
        total = hand.module("scale_heads.0.0", maps[0], padding=1)
        for level, convs in ((1, 1), (2, 2), (3, 3)):
            x = maps[level]
            for i in range(convs):
                # in the sequence an upsampling follows each convolution
                x = hand.module(f"scale_heads.{level}.{2 * i}", x, padding=1)
                x = larger(x, (2 * x.shape[2], 2 * x.shape[3]))
            total = total + x
        return (hand.conv("conv_seg", total),)

    def test_convolutions_have_a_norm_and_no_bias(self):
        layers = dict(self.build(1).scale_heads.named_modules())
        convs = [layer for layer in layers.values() if isinstance(layer, nn.Conv2d)]
        norms = [layer for layer in layers.values() if isinstance(layer, nn.BatchNorm2d)]
        assert len(convs) == len(norms) == 1 + 1 + 2 + 3
        assert all(conv.bias is None for conv in convs)


class TestUPerHead(DecodeContract):
    def build(self, time_steps: int) -> nn.Module:
        return SpikingUPerHead(**UPER, time_steps=time_steps)

    def step(self, hand: ByHand, *maps: Tensor) -> Maps:
        top = maps[-1]
        pooled = [
            larger(hand.module(f"psp_modules.{i}.1", F.adaptive_avg_pool2d(top, n)), top.shape[2:])
            for i, n in enumerate(UPER["pool_scales"])
        ]
        sums = [hand.module("bottleneck", torch.cat([top, *pooled], 1), padding=1)]
        for i in (2, 1, 0):
            below = hand.module(f"lateral_convs.{i}", maps[i])
            sums.insert(0, below + larger(sums[0], below.shape[2:]))
        outs = [hand.module(f"fpn_convs.{i}", sums[i], padding=1) for i in range(3)]
        finest = outs[0].shape[2:]
        joined = torch.cat([outs[0], *(larger(x, finest) for x in (*outs[1:], sums[3]))], 1)
        return (hand.conv("conv_seg", hand.module("fpn_bottleneck", joined, padding=1)),)


class TestFCNHead(DecodeContract):
    shapes = (DecodeContract.shapes[2],)
    options: dict[str, Any] = {}

    def build(self, time_steps: int) -> nn.Module:
        return SpikingFCNHead(**{**FCN, **self.options}, time_steps=time_steps)

    def call(self, part: nn.Module, maps: Maps) -> Maps:
        return (part((None, None, maps[0])),)

    def step(self, hand: ByHand, x: Tensor) -> Maps:
        out = hand.module("convs.1", hand.module("convs.0", x, padding=1), padding=1)
        out = hand.module("conv_cat", torch.cat([x, out], 1), padding=1)
        return (hand.conv("conv_seg", out),)


class TestAuxiliaryFCNHead(TestFCNHead):
    """As it stands beside UPerNet."""

    options = {"num_convs": 1, "concat_input": False}

    def step(self, hand: ByHand, x: Tensor) -> Maps:
        return (hand.conv("conv_seg", hand.module("convs.0", x, padding=1)),)


CASES = [
    (SpikingFPNHead, FPNHead, FPN),
    (SpikingUPerHead, UPerHead, UPER),
    (SpikingFCNHead, FCNHead, FCN),
]


@pytest.mark.parametrize(("spiking", "stock", "options"), CASES)
def test_layers_are_those_of_the_stock_class(spiking, stock, options: dict[str, Any]):
    ours, theirs = spiking(time_steps=2, **options), stock(**options)
    ours.load_state_dict(theirs.state_dict())
    assert {key: value.shape for key, value in ours.state_dict().items()} == {
        key: value.shape for key, value in theirs.state_dict().items()
    }


READ_BY_NEURONS = {
    # the last convolutions of the coarser levels are added to the finest
    SpikingFPNHead: {
        "scale_heads.0.0",
        "scale_heads.2.0",
        "scale_heads.3.0",
        "scale_heads.3.2",
    },
    # lateral layers are added to what comes from the top
    SpikingUPerHead: {
        "psp_modules.0.1",
        "psp_modules.1.1",
        "bottleneck",
        "fpn_convs.0",
        "fpn_convs.1",
        "fpn_convs.2",
        "fpn_bottleneck",
    },
    SpikingFCNHead: {"convs.0", "convs.1", "conv_cat"},
}


@pytest.mark.parametrize(("spiking", "stock", "options"), CASES)
def test_an_initial_current_is_the_bias_of_what_neurons_read(
    spiking, stock, options: dict[str, Any]
):
    def state(**more: float) -> dict[str, Tensor]:
        torch.manual_seed(0)
        head = spiking(**options, **more)
        head.init_weights()
        return head.state_dict()

    plain, driven = state(), state(initial_current=2.0)
    changed = {key for key in plain if not plain[key].equal(driven[key])}
    assert changed == {f"{layer}.bn.bias" for layer in READ_BY_NEURONS[spiking]}
    assert all((driven[key] == 2).all() for key in changed)


@pytest.mark.parametrize(("spiking", "stock", "options"), CASES)
def test_every_level_is_read(spiking, stock, options: dict[str, Any]):
    """And a level of one image and time step changes the logits of that image alone."""
    head = enliven(spiking(**options, time_steps=2))
    maps = [
        membranes(2 * 2, channels, 64 // stride, 64 // stride)
        for channels, stride in zip(IN, STRIDES, strict=True)
    ]
    with torch.no_grad():
        before = head(maps)
        for index in options["in_index"] if isinstance(options["in_index"], list) else [2]:
            changed = [x.clone() for x in maps]
            changed[index][3] += 2  # the second image at the second time step
            after = head(changed)
            assert_close(after[0], before[0])
            assert (after[1] - before[1]).abs().max() > 0.1

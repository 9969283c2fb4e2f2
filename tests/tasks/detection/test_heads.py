"""Spiking heads of MMDetection, layer by layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from spikebench.task import ConfigError
from spikebench_tasks.detection import registered
from tests.tasks.openmmlab.by_hand import ByHand, enliven, membranes
from tests.tasks.openmmlab.spiking_contract import Maps, SpikingContract

assert registered  # the operators come before mmdet

from mmdet.models import (  # noqa: E402
    FCNMaskHead,
    RetinaHead,
    RPNHead,
    Shared2FCBBoxHead,
    SingleRoIExtractor,
)

from spikebench_tasks.detection.heads import (  # noqa: E402
    SpikingFCNMaskHead,
    SpikingRetinaHead,
    SpikingRoIExtractor,
    SpikingRPNHead,
    SpikingShared2FCBBoxHead,
)

WIDTH, CLASSES, ROI = 6, 3, 4
BATCH_NORM = {"type": "BN"}
STRIDES = [4, 8, 16]
ANCHORS = {"type": "AnchorGenerator", "scales": [4], "ratios": [0.5, 1.0], "strides": STRIDES}
SINGLE_LEVEL: dict[str, Any] = {
    "in_channels": WIDTH,
    "feat_channels": WIDTH + 1,
    "anchor_generator": ANCHORS,
}
RETINA = {**SINGLE_LEVEL, "num_classes": CLASSES, "stacked_convs": 2}
BOX = {"in_channels": WIDTH, "roi_feat_size": ROI, "fc_out_channels": 20, "num_classes": CLASSES}
MASK = {
    "num_convs": 3,
    "in_channels": WIDTH,
    "conv_out_channels": WIDTH,
    "num_classes": CLASSES,
}


class DenseContract(SpikingContract):
    """A head that goes over the levels of a pyramid one by one."""

    shapes = ((WIDTH, 8, 8),)

    def call(self, part: nn.Module, maps: Maps) -> Maps:
        return part.forward_single(maps[0])

    def test_a_level_does_not_depend_on_the_others(self):
        head = enliven(self.build(3))
        levels = [membranes(6, WIDTH, size, size, seed=size) for size in (8, 4, 2)]
        with torch.no_grad():
            scores, deltas = head(levels)
            backwards = head(levels[::-1])
            for i, level in enumerate(levels):
                alone = head([level])
                assert len(scores[i]) == len(deltas[i]) == 2  # images
                for one in (alone[0][0], backwards[0][-1 - i], head.forward_single(level)[0]):
                    assert_close(one, scores[i], rtol=0, atol=0)
                for one in (alone[1][0], backwards[1][-1 - i], head.forward_single(level)[1]):
                    assert_close(one, deltas[i], rtol=0, atol=0)


class TestRPNHead(DenseContract):
    def build(self, time_steps: int) -> nn.Module:
        return SpikingRPNHead(**SINGLE_LEVEL, time_steps=time_steps)

    def step(self, hand: ByHand, x: Tensor) -> Maps:
        x = hand.conv("rpn_conv", x, padding=1)
        return hand.conv("rpn_cls", x), hand.conv("rpn_reg", x)

    def test_more_convolutions_are_refused(self):
        with pytest.raises(ConfigError, match="num_convs=2"):
            SpikingRPNHead(**SINGLE_LEVEL, num_convs=2)


class TestRetinaHead(DenseContract):
    options: dict[str, Any] = {}

    def build(self, time_steps: int) -> nn.Module:
        return SpikingRetinaHead(**RETINA, **self.options, time_steps=time_steps)

    def step(self, hand: ByHand, x: Tensor) -> Maps:
        scored = regressed = x
        for i in range(RETINA["stacked_convs"]):
            scored = hand.module(f"cls_convs.{i}", scored, padding=1)
            regressed = hand.module(f"reg_convs.{i}", regressed, padding=1)
        return (
            hand.conv("retina_cls", scored, padding=1),
            hand.conv("retina_reg", regressed, padding=1),
        )


class TestRetinaHeadWithNorm(TestRetinaHead):
    options = {"norm_cfg": BATCH_NORM}


class RegionContract(SpikingContract):
    """A head that reads regions; elements of a batch are regions here."""

    shapes = ((WIDTH, ROI, ROI),)

    @pytest.mark.parametrize("time_steps", [1, 3])
    @pytest.mark.parametrize("training", [False, True])
    def test_no_regions(self, time_steps: int, training: bool):
        head = enliven(self.build(time_steps)).train(training)
        regions = torch.zeros(0, *self.shapes[0], dtype=torch.float64, requires_grad=True)
        before = {key: value.clone() for key, value in head.state_dict().items()}
        some = self.call(head, self.maps(time_steps))
        none = self.call(head, (regions,))
        for one, other in zip(none, some, strict=True):
            assert one.shape == (0, *other.shape[1:])
        sum(one.sum() for one in none).backward()
        assert regions.grad.shape == regions.shape
        for name, weight in head.named_parameters():
            assert weight.grad is not None, name
            assert (weight.grad == 0).all(), name
        for name, value in head.state_dict().items():
            assert value.isfinite().all(), name
            assert training or value.equal(before[name]), name


class TestBoxHead(RegionContract):
    reads_real_values = frozenset({"fc_cls", "fc_reg"})
    options: dict[str, Any] = {}

    def build(self, time_steps: int) -> nn.Module:
        return SpikingShared2FCBBoxHead(**BOX, **self.options, time_steps=time_steps)

    def call(self, part: nn.Module, maps: Maps) -> Maps:
        return part(maps[0])

    def step(self, hand: ByHand, x: Tensor) -> Maps:
        x = hand.norm("norms.0", hand.linear("shared_fcs.0", x.reshape(len(x), -1)))
        x = hand.norm("norms.1", hand.linear("shared_fcs.1", x))
        return hand.real("fc_cls", x), hand.real("fc_reg", x)

    @pytest.mark.parametrize("option", ["with_avg_pool", "with_cls", "with_reg"])
    def test_options_that_it_does_not_follow_are_refused(self, option: str):
        value = option == "with_avg_pool"
        with pytest.raises(ConfigError, match=f"{option}={value}"):
            SpikingShared2FCBBoxHead(**BOX, **{option: value})


class TestBoxHeadWithNorm(TestBoxHead):
    options = {"norm_cfg": {"type": "BN1d"}}

    def test_a_single_region_is_trained_with_running_statistics(self):
        head = enliven(self.build(1))
        scored = head(*self.maps_of(1))
        before = {key: value.clone() for key, value in head.state_dict().items()}
        trained = head.train()(*self.maps_of(1))
        assert_close(trained, scored)
        assert all(value.equal(before[key]) for key, value in head.state_dict().items())
        trained[0].sum().backward()
        assert head.norms[0].bias.grad.abs().sum() > 0

    def maps_of(self, regions: int) -> Maps:
        return (membranes(regions, *self.shapes[0]),)


class TestMaskHead(RegionContract):
    options: dict[str, Any] = {}

    def build(self, time_steps: int) -> nn.Module:
        return SpikingFCNMaskHead(**{**MASK, **self.options}, time_steps=time_steps)

    def call(self, part: nn.Module, maps: Maps) -> Maps:
        return (part(maps[0]),)

    def step(self, hand: ByHand, x: Tensor) -> Maps:
        for i in range(MASK["num_convs"]):
            x = self.join(i, x, hand.module(f"convs.{i}", x, padding=1))
        x = hand.deconv("upsample", x, stride=2)
        return (hand.conv("conv_logits", x),)

    def join(self, index: int, x: Tensor, convolved: Tensor) -> Tensor:
        return convolved

    def test_masks_are_twice_as_large(self):
        (logits,) = self.call(self.build(2), self.maps_of_floats(2))
        assert logits.shape == (2, CLASSES, 2 * ROI, 2 * ROI)

    def maps_of_floats(self, time_steps: int) -> Maps:
        return tuple(one.float() for one in self.maps(time_steps))

    @pytest.mark.parametrize("method", [None, "nearest"])
    def test_other_upsampling_is_refused(self, method: str | None):
        with pytest.raises(ConfigError, match=repr(method)):
            SpikingFCNMaskHead(**MASK, upsample_cfg={"type": method, "scale_factor": 2})


class TestMaskHeadWithNorm(TestMaskHead):
    options = {"norm_cfg": BATCH_NORM}


class TestMaskHeadWithShortcuts(TestMaskHead):
    options = {"residual": True}

    def join(self, index: int, x: Tensor, convolved: Tensor) -> Tensor:
        return x + convolved


class TestMaskHeadWithShortcutsWhereChannelsFit(TestMaskHead):
    options = {"residual": True, "conv_out_channels": WIDTH + 1}

    def join(self, index: int, x: Tensor, convolved: Tensor) -> Tensor:
        return x + convolved if index else convolved


class TestRoIExtractor:
    OPTIONS: dict[str, Any] = {
        "roi_layer": {"type": "RoIAlign", "output_size": ROI, "sampling_ratio": 2},
        "out_channels": WIDTH,
        "featmap_strides": STRIDES,
        "finest_scale": 14,
    }
    IMAGES = 3

    def maps(self, time_steps: int) -> Maps:
        sizes = [(i, 64 // stride) for i, stride in enumerate(STRIDES)]
        return tuple(
            membranes(time_steps * self.IMAGES, WIDTH, size, size, seed=i) for i, size in sizes
        )

    def regions(self) -> Tensor:
        """Regions of every size; the second image has none."""
        corners = [[4, 4, 16, 18], [0, 8, 40, 40], [2, 2, 62, 60], [30, 20, 61, 43]]
        images = [0, 2, 2, 0]
        return torch.tensor([[i, *box] for i, box in zip(images, corners, strict=True)]).double()

    @pytest.mark.parametrize("scale", [None, 1.5])
    def test_it_pools_every_time_step_as_the_stock_one_does(self, scale: float | None):
        ours = SpikingRoIExtractor(time_steps=2, **self.OPTIONS)
        stock = SingleRoIExtractor(**self.OPTIONS)
        maps, regions = self.maps(2), self.regions()
        assert set(stock.map_roi_levels(regions, 3).tolist()) == {0, 1, 2}
        before = regions.clone()
        steps = [
            stock(tuple(x.chunk(2)[t] for x in maps), regions, roi_scale_factor=scale)
            for t in range(2)
        ]
        assert not torch.equal(*steps)
        assert_close(ours(maps, regions, roi_scale_factor=scale), torch.cat(steps))
        assert torch.equal(regions, before)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_regions_are_not_rounded_to_the_type_of_maps(self, dtype: torch.dtype):
        options = {**self.OPTIONS, "featmap_strides": [4]}
        wide = membranes(2, WIDTH, 4, 256).to(dtype)
        regions = torch.tensor([[0, 733.9, 3.3, 801.7, 12.9], [0, 402.7, 1.1, 409.3, 9.9]])
        pooled = SpikingRoIExtractor(2, **options)((wide,), regions)
        assert_close(pooled, SpikingRoIExtractor(2, **options)((wide.float(),), regions))

    @pytest.mark.parametrize("chosen", [[2], [3, 0], [0, 0]])
    def test_a_region_does_not_depend_on_the_others(self, chosen: list[int]):
        ours, maps, regions = SpikingRoIExtractor(2, **self.OPTIONS), self.maps(2), self.regions()
        everything = ours(maps, regions).unflatten(0, (2, -1))
        assert_close(ours(maps, regions[chosen]), everything[:, chosen].flatten(0, 1))

    @pytest.mark.parametrize("time_steps", [1, 2])
    def test_no_regions(self, time_steps: int):
        ours = SpikingRoIExtractor(time_steps=time_steps, **self.OPTIONS)
        maps = tuple(x.requires_grad_() for x in self.maps(time_steps))
        pooled = ours(maps, torch.zeros(0, 5, dtype=torch.float64))
        assert pooled.shape == (0, WIDTH, ROI, ROI)
        pooled.sum().backward()
        assert all((x.grad == 0).all() for x in maps)

    def test_gradients_reach_the_time_steps_and_images_of_the_regions(self):
        ours = SpikingRoIExtractor(2, **self.OPTIONS)
        maps = tuple(x.requires_grad_() for x in self.maps(2))
        regions = ours(maps, self.regions()).unflatten(0, (2, -1))
        regions[1].sum().backward()
        touched = sum(x.grad.abs().sum((1, 2, 3)) for x in maps).unflatten(0, (2, -1)) > 0
        assert touched.tolist() == [[False, False, False], [True, False, True]]


@pytest.mark.parametrize(
    ("spiking", "stock", "options"),
    [
        (SpikingRPNHead, RPNHead, SINGLE_LEVEL),
        (SpikingRetinaHead, RetinaHead, RETINA),
        (SpikingShared2FCBBoxHead, Shared2FCBBoxHead, BOX),
        (SpikingFCNMaskHead, FCNMaskHead, MASK),
        (SpikingFCNMaskHead, FCNMaskHead, {**MASK, "norm_cfg": BATCH_NORM}),
        (SpikingRoIExtractor, SingleRoIExtractor, TestRoIExtractor.OPTIONS),
    ],
)
def test_layers_are_those_of_the_stock_class(spiking, stock, options: dict[str, Any]):
    ours, theirs = spiking(time_steps=2, **options), stock(**options)
    ours.load_state_dict(theirs.state_dict())
    assert {key: value.shape for key, value in ours.state_dict().items()} == {
        key: value.shape for key, value in theirs.state_dict().items()
    }


READ_BY_NEURONS = [
    (SpikingRPNHead, SINGLE_LEVEL, {"rpn_conv"}),
    (
        SpikingRetinaHead,
        RETINA,
        {f"{kind}_convs.{i}.conv" for kind in ("cls", "reg") for i in range(2)},
    ),
    (SpikingShared2FCBBoxHead, BOX, {"shared_fcs.0"}),
    (SpikingShared2FCBBoxHead, {**BOX, "norm_cfg": {"type": "BN1d"}}, {"norms.0"}),
    (SpikingFCNMaskHead, MASK, {"upsample", *(f"convs.{i}.conv" for i in range(3))}),
    (
        SpikingFCNMaskHead,
        {**MASK, "norm_cfg": BATCH_NORM},
        {"upsample", *(f"convs.{i}.bn" for i in range(3))},
    ),
    (
        SpikingFCNMaskHead,
        {**MASK, "residual": True, "conv_out_channels": WIDTH + 1},
        {"upsample", "convs.0.conv"},
    ),
]


@pytest.mark.parametrize(("head", "options", "layers"), READ_BY_NEURONS)
def test_an_initial_current_is_the_bias_of_what_neurons_read(
    head, options: dict[str, Any], layers: set[str]
):
    def state(**more: float) -> dict[str, Tensor]:
        torch.manual_seed(0)
        made = head(**options, **more)
        made.init_weights()
        return made.state_dict()

    plain, driven = state(), state(initial_current=2.0)
    assert {key for key in plain if not plain[key].equal(driven[key])} == {
        f"{layer}.bias" for layer in layers
    }
    assert all((driven[f"{layer}.bias"] == 2).all() for layer in layers)


def test_the_published_mask_head_falls_silent_and_a_current_or_shortcuts_keep_it_awake():
    regions = 2 + torch.randn(16, 32, 14, 14, generator=torch.Generator().manual_seed(0))
    sizes = {"in_channels": 32, "conv_out_channels": 32, "num_classes": CLASSES}

    def last_rate(**options: Any) -> float:
        torch.manual_seed(0)
        head = SpikingFCNMaskHead(**sizes, **options)
        head.init_weights()
        rates: list[float] = []
        head.fire_upsample.register_forward_hook(lambda *call: rates.append(call[-1].mean().item()))
        with torch.no_grad():
            head(regions)
        return rates[0]

    assert last_rate() < 0.1
    assert 0.3 < last_rate(initial_current=2.0) < 0.7
    assert last_rate(residual=True) > 0.3

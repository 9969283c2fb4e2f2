from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, DefaultScope

from spikebench import build_backbone
from spikebench.registry import UnknownNameError
from spikebench.task import ConfigError
from spikebench_tasks.detection import registered as detection
from spikebench_tasks.openmmlab.adapter import SpikingBackbone, fit_to_backbone
from spikebench_tasks.segmentation import registered as segmentation

assert detection  # MMDetection can be imported
assert segmentation

NAME = "meta_spikeformer_nano"
CHANNELS = [one.channels for one in build_backbone(NAME).feature_info]
STRIDES = [2, 4, 8, 16, 16]
BACKBONE = {"type": "SpikingBackbone", "name": NAME}


def images(count: int, height: int, width: int) -> torch.Tensor:
    """In the layout that the adapter brings them to: in another, sums are rounded otherwise."""
    return torch.randn(count, 3, height, width).to(memory_format=torch.channels_last)


def fit(heads: dict, neck: dict | None = None, **backbone) -> tuple[dict, dict]:
    return fit_to_backbone({**BACKBONE, **backbone}, {"type": "FPN", **(neck or {})}, heads)


def test_the_backbone_of_these_tests_has_one_stride_twice():
    assert [one.stride for one in build_backbone(NAME).feature_info] == STRIDES


class TestSpikingBackbone:
    def test_maps_are_means_over_time(self):
        adapter = SpikingBackbone(NAME, time_steps=3).eval()
        image = images(2, 64, 32)
        with torch.no_grad():
            maps, over_time = adapter(image), adapter.model(image)
        assert len(maps) == len(STRIDES)
        for one, steps, channels, stride in zip(maps, over_time, CHANNELS, STRIDES, strict=True):
            assert one.shape == (2, channels, 64 // stride, 32 // stride)
            torch.testing.assert_close(one, sum(steps) / 3)

    @pytest.mark.parametrize("time_steps", [1, 2])
    @pytest.mark.parametrize("keep_time", [False, True])
    def test_maps_are_in_channels_last_layout(self, time_steps: int, keep_time: bool):
        adapter = SpikingBackbone(NAME, time_steps, keep_time=keep_time)
        for one in adapter(torch.randn(2, 3, 64, 32)):
            assert one.is_contiguous(memory_format=torch.channels_last)

    def test_time_that_is_kept_comes_before_the_batch(self):
        adapter = SpikingBackbone(NAME, time_steps=3, keep_time=True).eval()
        image = images(2, 64, 32)
        with torch.no_grad():
            maps, over_time = adapter(image), adapter.model(image)
        for one, steps in zip(maps, over_time, strict=True):
            assert steps.shape[:2] == (3, 2)
            assert one.equal(torch.cat(list(steps)))

    @pytest.mark.parametrize(
        ("options", "strides"),
        [
            ({}, [2, 4, 8, 16, 32]),
            ({"min_stride": 4}, [4, 8, 16, 32]),
            ({"one_per_stride": True}, [2, 4, 8, 16]),
            ({"out_indices": (1, 4)}, [4, 16]),
        ],
    )
    def test_published_strides_double_where_the_backbones_do_not(
        self, options: dict, strides: list[int]
    ):
        true = SpikingBackbone(NAME, **options)
        published = SpikingBackbone(NAME, published_strides=True, **options)
        assert [one.stride for one in published.feature_info] == strides
        assert [one.stride for one in true.feature_info] == [STRIDES[i] for i in true.out_indices]
        assert [one.channels for one in published.feature_info] == [
            one.channels for one in true.feature_info
        ]
        image = torch.randn(1, 3, 32, 32)
        published.load_state_dict(true.state_dict())
        for one, other in zip(published.eval()(image), true.eval()(image), strict=True):
            assert one.equal(other)

    def test_maps_are_as_the_feature_info_says(self):
        adapter = SpikingBackbone(NAME, out_indices=(1, 3))
        maps = adapter(torch.randn(1, 3, 32, 32))
        assert [(one.shape[1], 32 // one.shape[2]) for one in maps] == adapter.feature_info
        assert adapter.feature_info == [(CHANNELS[1], 4), (CHANNELS[3], 16)]

    @pytest.mark.parametrize(
        ("options", "indices"),
        [
            ({}, (0, 1, 2, 3, 4)),
            ({"min_stride": 4}, (1, 2, 3, 4)),
            ({"min_stride": 16}, (3, 4)),
            ({"out_indices": [4, 2]}, (4, 2)),
            ({"out_indices": [0], "min_stride": 8}, (0,)),
            ({"one_per_stride": True}, (0, 1, 2, 4)),
            ({"one_per_stride": True, "min_stride": 8}, (2, 4)),
            ({"one_per_stride": True, "out_indices": [3, 4]}, (3, 4)),
        ],
    )
    def test_maps_are_chosen(self, options: dict, indices: tuple[int, ...]):
        adapter = SpikingBackbone(NAME, **options).eval()
        assert adapter.out_indices == indices
        image = images(1, 32, 32)
        with torch.no_grad():
            maps, everything = adapter(image), adapter.model(image)
        for one, index in zip(maps, indices, strict=True):
            assert torch.equal(one, everything[index][0])

    @pytest.mark.parametrize(
        "options", [{"out_indices": [5]}, {"out_indices": [-1]}, {"out_indices": []}]
    )
    def test_a_map_that_is_not_there_is_an_error(self, options: dict):
        with pytest.raises(ConfigError, match=r"has maps 0 to 4 at strides \[2, 4, 8, 16, 16\]"):
            SpikingBackbone(NAME, **options)

    def test_a_min_stride_beyond_all_is_an_error(self):
        with pytest.raises(ConfigError, match="min_stride=32 chooses none"):
            SpikingBackbone(NAME, min_stride=32)

    def test_an_unknown_backbone_suggests_a_known_one(self):
        with pytest.raises(UnknownNameError, match=f"did you mean '{NAME}'"):
            SpikingBackbone("meta_spikeformer_nan")

    def test_arguments_are_those_of_the_backbone(self):
        with pytest.raises(TypeError, match="no_such_argument"):
            SpikingBackbone(NAME, arguments={"no_such_argument": 1})
        adapter = SpikingBackbone(NAME, time_steps=2, arguments={"in_channels": 2})
        assert adapter.model.time_steps == 2
        assert adapter(torch.randn(1, 2, 32, 32))[0].shape[1] == CHANNELS[0]

    def test_initialising_keeps_the_weights(self):
        adapter = MODELS.build(dict(BACKBONE))
        assert isinstance(adapter, SpikingBackbone)
        before = copy.deepcopy(adapter.state_dict())
        adapter.init_weights()
        assert all(torch.equal(before[name], value) for name, value in adapter.state_dict().items())

    @pytest.mark.parametrize(
        "init_cfg",
        [
            {"type": "Pretrained"},
            {"type": "Normal", "checkpoint": "x.pth"},
            {"type": "Pretrained", "checkpoint": "x.pth", "prefix": "backbone."},
            {"type": "Normal", "layer": "Conv2d", "std": 0.01},
        ],
    )
    def test_an_init_cfg_that_would_be_ignored_is_an_error(self, init_cfg: dict):
        with pytest.raises(ConfigError, match=r"expected None or dict\(type='Pretrained'"):
            SpikingBackbone(NAME, init_cfg=init_cfg)


class TestFitToBackbone:
    def test_the_neck_reads_every_map(self):
        neck, _ = fit({})
        assert neck == {"type": "FPN", "in_channels": CHANNELS, "num_outs": 5}

    def test_the_neck_reads_the_chosen_maps(self):
        neck, _ = fit({}, {"out_channels": 8}, min_stride=4)
        assert neck["in_channels"] == CHANNELS[1:]
        assert neck["num_outs"] == 4
        assert neck["out_channels"] == 8

    def test_anchors_have_the_strides_of_the_levels(self):
        heads = {"rpn_head": {"type": "RPNHead", "anchor_generator": {"type": "AnchorGenerator"}}}
        _, filled = fit(heads, min_stride=4)
        assert filled["rpn_head"]["anchor_generator"]["strides"] == [4, 8, 16, 16]
        _, filled = fit(heads, {"num_outs": 6}, min_stride=4)
        assert filled["rpn_head"]["anchor_generator"]["strides"] == [4, 8, 16, 16, 32, 64]
        _, filled = fit(heads, {"num_outs": 6}, min_stride=4, published_strides=True)
        assert filled["rpn_head"]["anchor_generator"]["strides"] == [4, 8, 16, 32, 64, 128]

    @pytest.mark.parametrize("published_strides", [False, True])
    def test_anchors_double_in_size_as_those_of_the_published_detectors(
        self, published_strides: bool
    ):
        from mmdet.registry import TASK_UTILS

        heads = {"a": {"type": "AnchorGenerator", "scales": [8], "ratios": [1.0]}}
        _, filled = fit(heads, {"num_outs": 5}, min_stride=4, published_strides=published_strides)
        anchors = TASK_UTILS.build(filled["a"])
        widths = [(base[:, 2] - base[:, 0]).tolist() for base in anchors.base_anchors]
        assert widths == [[32], [64], [128], [256], [512]]

    @pytest.mark.parametrize(
        ("options", "strides"),
        [({}, [4, 8, 16, 16]), ({"published_strides": True}, [4, 8, 16, 32])],
    )
    def test_regions_are_pooled_from_maps_and_not_from_further_levels(
        self, options: dict, strides: list[int]
    ):
        heads = {"roi_head": {"extractor": {"type": "SingleRoIExtractor", "finest_scale": 32}}}
        _, filled = fit(heads, {"num_outs": 6}, min_stride=4, **options)
        assert filled["roi_head"]["extractor"] == {
            "type": "SingleRoIExtractor",
            "finest_scale": 32,
            "featmap_strides": strides,
        }

    def test_a_decode_head_reads_every_level_of_the_neck(self):
        _, filled = fit({"decode_head": {"type": "FPNHead"}}, {"out_channels": 24})
        assert filled["decode_head"] == {
            "type": "FPNHead",
            "feature_strides": STRIDES,
            "in_index": [0, 1, 2, 3, 4],
            "in_channels": [24] * 5,
        }

    @pytest.mark.parametrize(
        ("levels", "strides"),
        [
            ({"start_level": 1}, [4, 8, 16, 16]),
            ({"start_level": 2, "num_outs": 4}, [8, 16, 16, 32]),
            ({"end_level": 2}, [2, 4, 8]),
            ({"start_level": 1, "end_level": 3}, [4, 8, 16]),
        ],
    )
    def test_a_neck_may_leave_maps_out(self, levels: dict, strides: list[int]):
        from mmdet.models.necks import FPN

        neck, filled = fit({"a": {"type": "AnchorGenerator"}}, {"out_channels": 8, **levels})
        assert filled["a"]["strides"] == strides
        made = FPN(**{key: value for key, value in neck.items() if key != "type"})
        maps = [torch.randn(1, c, 64 // s, 64 // s) for c, s in zip(CHANNELS, STRIDES, strict=True)]
        assert [64 // level.shape[-1] for level in made(maps)] == strides

    @pytest.mark.parametrize(
        ("levels", "strides"),
        [
            ({"end_level": 3}, [2, 4, 8]),
            ({"end_level": 5}, [2, 4, 8, 16, 16]),
            ({"start_level": 1, "end_level": 4}, [4, 8, 16]),
        ],
    )
    @pytest.mark.parametrize("kind", ["FPN", "SpikingFPN"])
    def test_mmsegmentation_leaves_the_end_level_out(
        self, levels: dict, strides: list[int], kind: str
    ):
        with DefaultScope.overwrite_default_scope("mmseg"):
            neck, filled = fit(
                {"decode_head": {"type": "FPNHead"}}, {"type": kind, "out_channels": 8, **levels}
            )
            made = MODELS.build(neck)
        maps = [torch.randn(1, c, 64 // s, 64 // s) for c, s in zip(CHANNELS, STRIDES, strict=True)]
        assert [64 // level.shape[-1] for level in made(maps)] == strides
        assert filled["decode_head"]["feature_strides"] == strides

    def test_heads_without_a_neck_read_the_maps(self):
        heads = {
            "decode_head": {"type": "SpikingUPerHead"},
            "auxiliary_head": [{"type": "SpikingFCNHead", "in_index": 2}, {"type": "FCNHead"}],
        }
        neck, filled = fit_to_backbone({**BACKBONE, "min_stride": 4}, None, heads)
        assert neck is None
        assert filled["decode_head"]["in_channels"] == CHANNELS[1:]
        assert filled["decode_head"]["in_index"] == [0, 1, 2, 3]
        first, second = filled["auxiliary_head"]
        assert first["in_channels"] == CHANNELS[3]
        assert second == {"type": "FCNHead", "in_channels": CHANNELS[4]}

    def test_another_backbone_is_an_error(self):
        with pytest.raises(ConfigError, match=r"type='mmdet.ResNet'.*expected 'SpikingBackbone'"):
            fit_to_backbone({"type": "mmdet.ResNet", "depth": 18}, {"type": "FPN"}, {})

    def test_what_a_configuration_says_stays(self):
        heads = {
            "a": {"type": "AnchorGenerator", "strides": [1, 2]},
            "sizes": {"type": "AnchorGenerator", "strides": [1, 2], "base_sizes": [3, 4]},
            "spiking": {"type": "SpikingRPNHead", "time_steps": 7},
            "b": {"type": "SingleRoIExtractor", "featmap_strides": [3]},
            "c": {
                "type": "FPNHead",
                "feature_strides": [5],
                "in_index": [0],
                "in_channels": [7],
            },
        }
        neck = {"in_channels": [9], "num_outs": 2, "out_channels": 8}
        filled_neck, filled = fit(heads, neck)
        assert filled == heads
        assert filled_neck == {"type": "FPN", **neck}

    def test_a_type_may_name_its_scope_and_stand_in_a_list(self):
        heads = {"heads": [{"anchors": {"type": "mmdet.AnchorGenerator"}}, {"type": "Other"}]}
        _, filled = fit(heads)
        assert filled["heads"][0]["anchors"]["strides"] == STRIDES
        assert filled["heads"][1] == {"type": "Other"}

    def test_the_arguments_are_left_as_they_are(self):
        backbone, neck = dict(BACKBONE), {"type": "FPN", "out_channels": 8}
        heads = {"a": {"type": "AnchorGenerator"}, "b": [{"type": "FPNHead"}]}
        before = copy.deepcopy((backbone, neck, heads))
        fit_to_backbone(backbone, neck, heads)
        assert (backbone, neck, heads) == before

    def test_parts_are_still_read_by_attribute_and_keep_their_types(self):
        """MMDetection reads `train_cfg.rpn.assigner` and the like."""
        heads = ConfigDict(train_cfg={"rpn": {"assigner": {"type": "A"}}}, size=(4, 8), n=None)
        _, filled = fit(heads)
        assert filled.train_cfg.rpn.assigner.type == "A"
        assert filled.size == (4, 8)
        assert filled.n is None


class TestTime:
    STOCK = [
        ("rpn_head", "RPNHead", "SpikingRPNHead"),
        ("bbox_head", "RetinaHead", "SpikingRetinaHead"),
        ("bbox_head", "mmdet.Shared2FCBBoxHead", "SpikingShared2FCBBoxHead"),
        ("bbox_roi_extractor", "SingleRoIExtractor", "SpikingRoIExtractor"),
        ("mask_roi_extractor", "SingleRoIExtractor", "SpikingRoIExtractor"),
        ("mask_head", "FCNMaskHead", "SpikingFCNMaskHead"),
        ("decode_head", "FPNHead", "SpikingFPNHead"),
        ("decode_head", "UPerHead", "SpikingUPerHead"),
        ("auxiliary_head", "FCNHead", "SpikingFCNHead"),
    ]
    KEPT = {"time_steps": 2, "keep_time": True}
    SPIKING = {"type": "SpikingFPN", "out_channels": 8}

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({"time_steps": 3, "keep_time": True}, 3),
            ({"time_steps": 3}, 1),
            ({"time_steps": 1, "keep_time": True}, 1),
        ],
    )
    def test_spiking_parts_get_the_time_steps_that_they_read(self, options: dict, expected: int):
        heads = {"roi_head": {"type": "Other", "bbox_head": [{"type": "SpikingAnything"}]}}
        neck, filled = fit(heads, self.SPIKING, **options)
        assert neck["time_steps"] == expected
        assert filled["roi_head"]["bbox_head"][0]["time_steps"] == expected
        assert "time_steps" not in filled["roi_head"]

    @pytest.mark.parametrize(("part", "stock", "spiking"), STOCK)
    def test_a_stock_part_cannot_read_time_that_is_kept(self, part: str, stock: str, spiking: str):
        heads: dict[str, Any] = {"roi_head": {part: [{"type": stock}]}}
        with pytest.raises(ConfigError) as caught:
            fit(heads, self.SPIKING, **self.KEPT)
        message = str(caught.value)
        assert message.startswith(f"{part}.type={stock.removeprefix('mmdet.')!r} reads maps")
        assert message.endswith(f"such as {spiking!r}, or keep_time=False")
        assert "\n" not in message
        assert any(spiking in registry for registry in self.registries())

    def test_it_can_read_time_that_is_averaged_or_a_single_step(self):
        heads = {"rpn_head": {"type": "RPNHead"}, "decode_head": {"type": "FPNHead"}}
        fit(heads, {"type": "FPN", "out_channels": 8}, time_steps=2)
        fit(heads, {"type": "FPN", "out_channels": 8}, time_steps=1, keep_time=True)

    @staticmethod
    def registries() -> list:
        import mmdet.registry
        import mmseg.registry

        return [mmdet.registry.MODELS, mmseg.registry.MODELS]

    def test_neither_can_a_stock_neck(self):
        with pytest.raises(ConfigError, match="neck.type='FPN'.*such as 'SpikingFPN'"):
            fit({}, {"type": "FPN", "out_channels": 8}, **self.KEPT)

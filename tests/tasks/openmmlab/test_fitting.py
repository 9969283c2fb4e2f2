from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, DefaultScope

from spikebench import build_backbone
from spikebench.task import ConfigError
from spikebench_tasks.detection import registered as detection
from spikebench_tasks.openmmlab.fitting import Maps, fit_to_backbone
from spikebench_tasks.segmentation import registered as segmentation

assert detection  # MMDetection can be imported
assert segmentation

NAME = "meta_spikeformer_nano"
CHANNELS = [one.channels for one in build_backbone(NAME).feature_info]
STRIDES = [2, 4, 8, 16, 16]
BACKBONE = {"type": "SpikingBackbone", "name": NAME}


def fit(heads: dict, neck: dict | None = None, **backbone) -> tuple[dict, dict]:
    return fit_to_backbone({**BACKBONE, **backbone}, {"type": "FPN", **(neck or {})}, heads)


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
        with pytest.raises(ConfigError, match=r"type='mmdet.ResNet'"):
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

    def test_a_class_may_fit_itself(self, monkeypatch: pytest.MonkeyPatch):
        class Fitting:
            @classmethod
            def fit_config(cls, config: dict, maps: Maps) -> dict:
                return {**config, "grid": maps.level_strides}

        monkeypatch.setitem(MODELS.module_dict, "Fitting", Fitting)
        _, filled = fit({"mask_head": {"type": "Fitting"}}, {"num_outs": 6})
        assert filled["mask_head"] == {"type": "Fitting", "grid": [*STRIDES, 32]}

    def test_any_head_that_selects_maps_gets_their_channels(self):
        heads = {"decode_head": {"type": "PSPHead", "in_index": 1}}
        _, filled = fit_to_backbone(BACKBONE, None, heads)
        assert filled["decode_head"]["in_channels"] == CHANNELS[1]


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
        part = {"type": "SpikingShared2FCBBoxHead"}
        heads = {"roi_head": {"type": "Other", "bbox_head": [part]}}
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
        assert f"{part}.type={stock.removeprefix('mmdet.')!r}" in message
        assert repr(spiking) in message
        assert "keep_time=False" in message
        assert "\n" not in message

    def test_it_can_read_time_that_is_averaged_or_a_single_step(self):
        heads = {"rpn_head": {"type": "RPNHead"}, "decode_head": {"type": "FPNHead"}}
        fit(heads, {"type": "FPN", "out_channels": 8}, time_steps=2)
        fit(heads, {"type": "FPN", "out_channels": 8}, time_steps=1, keep_time=True)

    def test_neither_can_a_stock_neck(self):
        with pytest.raises(ConfigError, match="neck.type='FPN'.*'SpikingFPN'"):
            fit({}, {"type": "FPN", "out_channels": 8}, **self.KEPT)

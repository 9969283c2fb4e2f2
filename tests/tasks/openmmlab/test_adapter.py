from __future__ import annotations

import copy

import pytest
import torch
from mmengine.registry import MODELS

from spikebench import build_backbone
from spikebench.registry import UnknownNameError
from spikebench.task import ConfigError
from spikebench_tasks.openmmlab.adapter import SpikingBackbone

NAME = "meta_spikeformer_nano"
CHANNELS = [one.channels for one in build_backbone(NAME).feature_info]
STRIDES = [2, 4, 8, 16, 16]
BACKBONE = {"type": "SpikingBackbone", "name": NAME}


def images(count: int, height: int, width: int) -> torch.Tensor:
    """In the layout that the adapter brings them to: in another, sums are rounded otherwise."""
    return torch.randn(count, 3, height, width).to(memory_format=torch.channels_last)


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
        with pytest.raises(ConfigError, match=r"\[2, 4, 8, 16, 16\]"):
            SpikingBackbone(NAME, **options)

    def test_a_min_stride_beyond_all_is_an_error(self):
        with pytest.raises(ConfigError, match="min_stride=32"):
            SpikingBackbone(NAME, min_stride=32)

    def test_an_unknown_backbone_suggests_a_known_one(self):
        with pytest.raises(UnknownNameError, match=f"'{NAME}'"):
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
        with pytest.raises(ConfigError, match="init_cfg"):
            SpikingBackbone(NAME, init_cfg=init_cfg)

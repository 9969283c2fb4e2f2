"""Detectors and segmentors whose necks and heads keep time, and such as average it before."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.tasks.openmmlab.by_hand import Reads
from tests.tasks.openmmlab.nano_models import (
    DETECTORS,
    READS_REAL_VALUES,
    SEGMENTORS,
    batch,
    build,
)

from mmdet.models.roi_heads.mask_heads import fcn_mask_head  # isort: skip  (operators first)

_do_paste_mask = fcn_mask_head._do_paste_mask

pytestmark = pytest.mark.filterwarnings("ignore")

MODELS = (*DETECTORS, *SEGMENTORS)
TIMES = [
    {"time_steps": 1},
    {"time_steps": 2},
    {"time_steps": 2, "keep_time": True},
]


def losses(model: Any, data: dict[str, Any]) -> dict[str, Tensor]:
    """What a training step computes, by name."""
    torch.manual_seed(0)  # of the sampling of anchors and regions
    given = model.data_preprocessor(copy.deepcopy(data), training=True)
    return model.parse_losses(model(**given, mode="loss"))[1]


def predictions(model: Any, data: dict[str, Any]) -> list[tuple[Tensor, ...]]:
    """What a test step finds in each image."""
    given = model.data_preprocessor(copy.deepcopy(data), training=False)
    given["inputs"] = given["inputs"].to(next(model.parameters()).dtype)
    with torch.no_grad():
        samples = model(**given, mode="predict")
    found = []
    for sample in samples:
        if "pred_instances" in sample:
            instances = sample.pred_instances
            found.append((instances.bboxes, instances.scores, instances.labels))
            if "masks" in instances:
                found[-1] += (instances.masks,)
        else:
            found.append((sample.seg_logits.data, sample.pred_sem_seg.data))
    return found


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("time", TIMES)
def test_it_trains_one_step_and_predicts(name: str, time: dict):
    model, data = build(name, **time), batch(name)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    model.train()
    before = losses(model, data)
    assert before["loss"].isfinite()
    before["loss"].backward()
    for part, weight in model.named_parameters():
        assert weight.grad is not None, part
        assert weight.grad.isfinite().all(), part
        assert weight.grad.abs().sum() > 0, part
    optimizer.step()
    after = losses(model, data)
    assert after["loss"].isfinite()
    assert after["loss"] != before["loss"]

    found = predictions(model.eval(), data)
    assert len(found) == 2
    for image in found:
        assert all(len(one) > 0 for one in image)
        assert all(one.isfinite().all() for one in image)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("training", [False, True])
def test_necks_and_heads_read_spikes(name: str, time: dict, training: bool):
    model, data = build(name, **time).train(training), batch(name)
    with Reads(model) as reads:
        losses(model, data) if training else predictions(model, data)
    parts = {layer for layer in reads.inputs if not layer.startswith("backbone.")}
    assert parts
    assert {one for one in reads.silent if not one.startswith("backbone.")} <= {
        layer for layer in reads.silent if layer.startswith("auxiliary_head.") and not training
    }
    real = {layer for layer in reads.not_binary() if not layer.startswith("backbone.")}
    assert real == {layer for layer in READS_REAL_VALUES if layer in parts}


@pytest.mark.parametrize("name", MODELS)
def test_in_a_single_time_step_both_are_one(name: str):
    averaged, kept = build(name), build(name, keep_time=True)
    kept.load_state_dict(averaged.state_dict())
    data = batch(name)
    assert_close(losses(kept.train(), data), losses(averaged.train(), data), rtol=0, atol=0)
    assert_close(predictions(kept.eval(), data), predictions(averaged.eval(), data), rtol=0, atol=0)


@pytest.mark.parametrize("name", MODELS)
def test_in_several_they_differ_in_what_necks_and_heads_compute_and_not_in_weights(name: str):
    averaged, kept = build(name, time_steps=2), build(name, time_steps=2, keep_time=True)
    once = build(name)
    shapes = {key: value.shape for key, value in averaged.state_dict().items()}
    for other in (kept, once):
        assert {key: value.shape for key, value in other.state_dict().items()} == shapes
    kept.load_state_dict(averaged.state_dict())

    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        for both, mean in zip(
            kept.eval().backbone(images), averaged.eval().backbone(images), strict=True
        ):
            assert len(both) == 2 * len(mean) == 6
            assert_close(both.unflatten(0, (2, 3)).mean(0), mean)
        levels = [len(level) for level in kept.extract_feat(images)]
    assert set(levels) == {6}
    assert losses(kept, batch(name))["loss"] != losses(averaged, batch(name))["loss"]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("keep_time", [False, True])
def test_state_is_fresh_in_every_forward(name: str, keep_time: bool):
    model, data = build(name, time_steps=2, keep_time=keep_time), batch(name)
    model.eval()
    first = predictions(model, data)
    predictions(model, batch(name, images=3))
    losses(model, data)
    assert_close(predictions(model, data), first, rtol=0, atol=0)

    model.train()
    first_losses = losses(model, data)
    predictions(model, batch(name, images=3))
    assert_close(losses(model, data), first_losses, rtol=0, atol=0)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("keep_time", [False, True])
def test_images_of_a_batch_do_not_see_each_other(
    name: str, keep_time: bool, monkeypatch: pytest.MonkeyPatch
):
    def in_floats(masks: Tensor, boxes: Tensor, *options: Any, **named: Any) -> Any:
        return _do_paste_mask(masks.float(), boxes.float(), *options, **named)

    monkeypatch.setattr(fcn_mask_head, "_do_paste_mask", in_floats)
    model = build(name, time_steps=2, keep_time=keep_time).double().eval()
    data = batch(name, images=3)
    together = predictions(model, data)
    for i in range(3):
        alone = predictions(model, {key: value[i : i + 1] for key, value in data.items()})
        assert_close(alone[0], together[i])


def test_an_image_without_objects_trains_the_boxes_and_not_the_masks():
    """As a crop leaves it: no region has a mask."""
    for time in TIMES:
        model, data = build("mask_rcnn", **time), batch("mask_rcnn")
        for sample in data["data_samples"]:
            sample.gt_instances = sample.gt_instances[:0]
        model.train()
        found = losses(model, data)
        assert found["loss"].isfinite()
        found["loss"].backward()
        heads = model.roi_head
        assert heads.bbox_head.fc_cls.weight.grad.abs().sum() > 0
        assert all((weight.grad == 0).all() for weight in heads.mask_head.parameters())

"""Where anchors and regions lie, by the strides of the maps and by the published ones.

The last map of Meta-SpikeFormer is at stride 16, as the one before it. The published detectors take
it for one at stride 32, so that what stands at x in it is looked for at 2 x in the image.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from tests.tasks.openmmlab.nano_models import build

pytestmark = pytest.mark.filterwarnings("ignore")

SIDE = 256
STRIDES = [4, 8, 16, 16]
COLUMN, ROW = 9, 5  # of the last map
X, Y = (COLUMN + 0.5) * 16, (ROW + 0.5) * 16  # the middle of that cell in the image
EXTRACTORS = ["bbox_roi_extractor", "mask_roi_extractor"]


class Point(NamedTuple):
    x: float
    y: float

    def off(self) -> tuple[float, float]:
        """Pixels from where the impulse stands in the image."""
        return self.x - X, self.y - Y


def with_an_impulse(channels: list[int], height: float = 100.0) -> tuple[Tensor, ...]:
    """Maps of an image, all 0 but for one cell of the last."""
    maps = [
        torch.zeros(1, width, SIDE // stride, SIDE // stride)
        for width, stride in zip(channels, STRIDES, strict=True)
    ]
    maps[-1][:, :, ROW, COLUMN] = height
    return tuple(maps)


def responding_anchors(model: Any) -> list[Point]:
    """For each level, the middle of the anchors whose scores the impulse changes."""
    for part in (model.neck, model.rpn_head):
        for weight in part.parameters():  # with which all fires that the impulse reaches
            nn.init.constant_(weight, float(weight.dim() > 1))
    channels = [one.channels for one in model.backbone.feature_info]
    with torch.no_grad():
        with_it, without = (
            model.rpn_head(model.neck(with_an_impulse(channels, height)))[0]
            for height in (100.0, 0.0)
        )
    changed = [(a - b).abs().amax((0, 1)) > 0 for a, b in zip(with_it, without, strict=True)]
    anchors = model.rpn_head.prior_generator.grid_priors(
        [one.shape for one in changed], device="cpu"
    )
    middles = []
    for cells, boxes in zip(changed, anchors, strict=True):
        assert cells.any()
        assert not cells.all()
        boxes = boxes.view(*cells.shape, -1, 4)[cells]
        low, high = boxes[..., :2].amin((0, 1)), boxes[..., 2:].amax((0, 1))
        middles.append(Point(*((low + high) / 2).tolist()))
    return middles


class TestAnchors:
    def test_ours_stand_within_a_cell_of_what_they_see(self):
        model = build("mask_rcnn")
        for stride, middle in zip([*STRIDES, 32], responding_anchors(model), strict=True):
            # MMDetection puts anchors onto the corners of cells
            assert max(map(abs, middle.off())) <= stride / 2, f"stride {stride}"

    def test_the_published_ones_of_the_last_map_stand_twice_as_far_from_the_corner(self):
        model = build("mask_rcnn", published_strides=True)
        *finer, last, pooled = responding_anchors(model)
        for stride, middle in zip(STRIDES, finer, strict=False):
            assert max(map(abs, middle.off())) <= stride / 2
        assert last == (COLUMN * 32, ROW * 32) == (288, 160)
        assert last.off() == (136, 72)
        assert pooled.off() == pytest.approx((136, 72), abs=1e-3)

    @pytest.mark.parametrize(("published", "last"), [(False, [16, 32]), (True, [32, 64])])
    def test_of_all_levels(self, published: bool, last: list[int]):
        model = build("mask_rcnn", published_strides=published)
        strides = model.rpn_head.prior_generator.strides
        assert strides == [(stride, stride) for stride in [4, 8, 16, *last]]

    @pytest.mark.parametrize("name", ["faster_rcnn", "retinanet"])
    @pytest.mark.parametrize("published", [False, True])
    def test_ours_cover_the_image_and_the_published_ones_reach_out_of_it(
        self, name: str, published: bool
    ):
        model = build(name, published_strides=published)
        with torch.no_grad():
            levels = model.extract_feat(torch.zeros(1, 3, SIDE, SIDE))
        head = model.bbox_head if name == "retinanet" else model.rpn_head
        shapes = [level.shape[2:] for level in levels]
        anchors = head.prior_generator.grid_priors(shapes, device="cpu")
        last = len(model.backbone.feature_info) - 1
        for i, (shape, boxes) in enumerate(zip(shapes, anchors, strict=True)):
            middles = (boxes[:, :2] + boxes[:, 2:]) / 2
            step = middles.max().item() / (shape[1] - 1)
            assert step * shape[1] == pytest.approx(2 * SIDE if published and i >= last else SIDE)


class TestRegions:
    SIZE = 128  # of a region, large enough for the last map

    def response(self, extractor: Any, x: float, y: float) -> Tensor:
        """What a square region around a pixel holds of the impulse, as `(h, w)`."""
        half = self.SIZE / 2
        region = torch.tensor([[0, x - half, y - half, x + half, y + half]])
        levels = extractor.map_roi_levels(region, len(STRIDES))
        assert levels.tolist() == [3]
        maps = with_an_impulse([extractor.out_channels] * len(STRIDES), height=1.0)
        return extractor(maps, region)[0, 0]

    def middle(self, response: Tensor, x: float, y: float) -> Point:
        """Where a response has its centre, as a pixel of the image."""
        steps = (torch.arange(len(response)) + 0.5) / len(response) - 0.5
        weights = response / response.sum()
        across, down = (weights.sum(0) * steps).sum(), (weights.sum(1) * steps).sum()
        return Point(x + self.SIZE * across.item(), y + self.SIZE * down.item())

    @pytest.mark.parametrize("name", EXTRACTORS)
    def test_ours_hold_what_stands_in_them(self, name: str):
        extractor = getattr(build("mask_rcnn").roi_head, name)
        assert extractor.featmap_strides == STRIDES
        response = self.response(extractor, X, Y)
        assert response.sum() > 0
        assert self.middle(response, X, Y).off() == pytest.approx((0, 0), abs=1e-3)
        # and where the region is moved, it is found at the other place in it
        moved = self.response(extractor, X + 32, Y - 16)
        assert self.middle(moved, X + 32, Y - 16).off() == pytest.approx((0, 0), abs=8)

    @pytest.mark.parametrize("name", EXTRACTORS)
    def test_the_published_ones_hold_what_stands_elsewhere(self, name: str):
        roi_head = build("mask_rcnn", published_strides=True).roi_head
        extractor = getattr(roi_head, name)
        assert extractor.featmap_strides == [4, 8, 16, 32]
        assert self.response(extractor, X, Y).sum() == 0
        there = self.response(extractor, 2 * X, 2 * Y)
        assert there.sum() > 0
        off = self.middle(there, 2 * X, 2 * Y).off()
        assert off == pytest.approx((X, Y), abs=1e-3)
        assert off == pytest.approx((152, 88), abs=1e-3)

"""The stand-in for mmcv's compiled ops, through mmcv's own functions as far as they reach."""

import importlib
import importlib.util
import pkgutil
import sys

import numpy as np
import pytest
import torch
import torchvision

from _spikebench_mmcv import OpsFinder, install
from spikebench_tasks.openmmlab import ops, roi_align

install()

import mmcv.ops  # noqa: E402
from mmengine.utils.dl_utils import mmcv_full_available  # noqa: E402

extension = importlib.import_module("mmcv._ext")
stand_in = pytest.mark.skipif(
    not isinstance(extension.__spec__.loader, OpsFinder), reason="a compiled mmcv is installed"
)


def random_boxes(count, size=100.0, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, 2, generator=generator, dtype=dtype) * size
    return torch.cat([corners.amin(1), corners.amax(1)], dim=1)


def random_rois(count, batch_size, size=100.0, seed=0, dtype=torch.float32):
    index = torch.arange(count, dtype=dtype)[:, None] % batch_size
    return torch.cat([index, random_boxes(count, size, seed, dtype)], dim=1)


class TestFinder:
    def test_installing_twice_adds_one_finder(self):
        install()
        install()
        assert sum(isinstance(finder, OpsFinder) for finder in sys.meta_path) == 1

    @stand_in
    def test_the_module_has_a_spec(self):
        spec = importlib.util.find_spec("mmcv._ext")
        assert spec.name == "mmcv._ext"
        assert isinstance(spec.loader, OpsFinder)

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_openmmlab_sees_the_module(self):
        assert mmcv_full_available()
        if hasattr(pkgutil, "find_loader"):  # removed in Python 3.14
            assert pkgutil.find_loader("mmcv._ext") is not None

    @pytest.mark.parametrize("name", ["mmcv", "mmcv._ext.nms", "mmcv._extension", "_ext"])
    def test_no_other_module_is_found(self, name):
        assert OpsFinder().find_spec(name, None) is None

    def test_detection_and_segmentation_models_import(self):
        import mmdet.models
        import mmseg.models

        assert mmdet.models.MaskRCNN
        assert mmseg.models.EncoderDecoder


@stand_in
class TestMissingOps:
    def test_every_op_that_mmcv_names_is_there(self):
        assert callable(extension.softnms)
        assert callable(extension.an_op_yet_to_be_written)

    def test_calling_one_names_it(self):
        with pytest.raises(NotImplementedError, match="'softnms'"):
            mmcv.ops.soft_nms(random_boxes(3), torch.rand(3))
        with pytest.raises(NotImplementedError, match="'roi_pool_forward'"):
            mmcv.ops.RoIPool(2)(torch.rand(1, 1, 8, 8), random_rois(2, 1, size=8))

    def test_private_names_are_absent(self):
        assert not hasattr(extension, "__path__")
        assert not hasattr(extension, "__wrapped__")
        with pytest.raises(AttributeError, match="'mmcv._ext' has no attribute '_private'"):
            extension._private  # noqa: B018

    def test_max_pooling_is_named(self):
        features = torch.rand(1, 1, 8, 8)
        rois = random_rois(2, 1, size=8)
        pool = mmcv.ops.RoIAlign(2, pool_mode="max")
        with pytest.raises(NotImplementedError, match="pool_mode='max'"):
            pool(features, rois)
        with pytest.raises(NotImplementedError, match="pool_mode='max'"):
            ops.roi_align_backward(
                torch.rand(2, 1, 2, 2), rois, rois, rois, features, 2, 2, 1.0, 0, 0, True
            )
        with pytest.raises(ValueError, match="not 2"):
            ops.roi_align_forward(features, rois, features, rois, rois, 2, 2, 1.0, 0, 2, True)

    def test_the_environment_report_works(self):
        assert mmcv.ops.get_compiler_version() == "n/a"
        assert mmcv.ops.get_compiling_cuda_version() == "n/a"


@stand_in
class TestNms:
    # Areas 100, 50 and 100. The second overlaps the first by 50: IoU 50 / 100. With offset 1 the
    # areas are 121 and 66, all of the latter inside the former: IoU 66 / 121 = 0.545. The third
    # stands apart.
    BOXES = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [20, 20, 30, 30]])
    SCORES = torch.tensor([0.6, 0.7, 0.9])

    @pytest.mark.parametrize(
        ("iou_threshold", "offset", "kept"),
        [
            (0.49, 0, [2, 1]),
            (0.5, 0, [2, 1, 0]),  # only what exceeds the threshold goes
            (0.52, 0, [2, 1, 0]),
            (0.52, 1, [2, 1]),
            (0.54, 1, [2, 1]),
            (0.55, 1, [2, 1, 0]),
        ],
    )
    def test_three_boxes_by_hand(self, iou_threshold, offset, kept):
        dets, indices = mmcv.ops.nms(self.BOXES, self.SCORES, iou_threshold, offset=offset)
        assert indices.tolist() == kept
        assert indices.dtype == torch.int64
        torch.testing.assert_close(
            dets, torch.cat([self.BOXES[kept], self.SCORES[kept, None]], dim=1)
        )

    def test_an_offset_of_one_moves_touching_boxes_together(self):
        # Pixels 0..4 and 4..8 share one column: 5 of 45 pixels, IoU 1 / 9. Lengths share none.
        boxes = torch.tensor([[0.0, 0, 4, 4], [4, 0, 8, 4]])
        scores = torch.tensor([0.9, 0.8])
        assert mmcv.ops.nms(boxes, scores, 0.11, offset=0)[1].tolist() == [0, 1]
        assert mmcv.ops.nms(boxes, scores, 0.11, offset=1)[1].tolist() == [0]
        assert mmcv.ops.nms(boxes, scores, 0.12, offset=1)[1].tolist() == [0, 1]

    def test_the_inputs_are_left_as_they_were(self):
        boxes, scores = self.BOXES.clone(), self.SCORES.clone()
        mmcv.ops.nms(boxes, scores, 0.5, offset=1)
        assert torch.equal(boxes, self.BOXES)
        assert torch.equal(scores, self.SCORES)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("iou_threshold", [0.1, 0.3, 0.6])
    def test_an_iou_equal_to_the_threshold_stays(self, dtype, iou_threshold):
        # IoU is exactly iou_threshold, which no binary fraction represents.
        boxes = torch.tensor([[0, 0, 10, 1], [0, 0, round(10 * iou_threshold), 1]], dtype=dtype)
        scores = torch.tensor([0.9, 0.8], dtype=dtype)
        assert mmcv.ops.nms(boxes, scores, iou_threshold)[1].tolist() == [0, 1]
        assert mmcv.ops.nms(boxes, scores, iou_threshold - 1e-3)[1].tolist() == [0]

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("iou_threshold", [0.1, 0.5, 0.7])
    def test_equals_torchvision(self, dtype, iou_threshold):
        boxes = random_boxes(200, dtype=dtype)
        scores = torch.rand(200, generator=torch.Generator().manual_seed(1), dtype=dtype)
        expected = torchvision.ops.nms(boxes, scores, iou_threshold)
        assert 0 < len(expected) < 200
        assert torch.equal(mmcv.ops.nms(boxes, scores, iou_threshold)[1], expected)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_keeps_what_float32_keeps(self, dtype):
        boxes, scores = random_boxes(100).to(dtype), torch.linspace(0, 1, 100).to(dtype)
        expected = torchvision.ops.nms(boxes.float(), scores.float(), 0.5)
        assert torch.equal(mmcv.ops.nms(boxes, scores, 0.5)[1], expected)

    def test_boxes_and_scores_may_differ_in_precision(self):
        _, indices = mmcv.ops.nms(self.BOXES.double(), self.SCORES.half(), 0.49)
        assert indices.tolist() == [2, 1]

    def test_no_boxes(self):
        dets, indices = mmcv.ops.nms(torch.empty(0, 4), torch.empty(0), 0.5, offset=1)
        assert dets.shape == (0, 5)
        assert indices.shape == (0,)
        assert indices.dtype == torch.int64

    def test_arrays_score_threshold_and_number(self):
        boxes, scores = self.BOXES.numpy(), self.SCORES.numpy()
        dets, indices = mmcv.ops.nms(boxes, scores, 0.5, score_threshold=0.65)
        assert isinstance(dets, np.ndarray)
        assert indices.tolist() == [2, 1]
        assert mmcv.ops.nms(boxes, scores, 0.5, max_num=1)[1].tolist() == [2]


@stand_in
class TestBatchedNms:
    BOXES = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 9, 10]])
    SCORES = torch.tensor([0.7, 0.9, 0.8])
    CLASSES = torch.tensor([0, 1, 0])

    def test_classes_are_apart(self):
        dets, kept = mmcv.ops.batched_nms(
            self.BOXES, self.SCORES, self.CLASSES, {"type": "nms", "iou_threshold": 0.5}
        )
        assert kept.tolist() == [1, 2]
        torch.testing.assert_close(dets[:, :4], self.BOXES[[1, 2]])
        torch.testing.assert_close(dets[:, 4], self.SCORES[[1, 2]])

    def test_class_agnostic(self):
        config = {"iou_threshold": 0.5, "class_agnostic": True}
        _, kept = mmcv.ops.batched_nms(self.BOXES, self.SCORES, self.CLASSES, config)
        assert kept.tolist() == [1]

    @pytest.mark.parametrize("split_thr", [10, 10000])
    def test_equals_torchvision(self, split_thr):
        boxes = random_boxes(150)
        scores = torch.rand(150, generator=torch.Generator().manual_seed(2))
        classes = torch.arange(150) % 3
        expected = torchvision.ops.batched_nms(boxes, scores, classes, 0.4)
        _, kept = mmcv.ops.batched_nms(
            boxes, scores, classes, {"iou_threshold": 0.4, "split_thr": split_thr}
        )
        assert torch.equal(kept, expected)

    def test_soft_nms_is_named(self):
        config = {"type": "soft_nms", "iou_threshold": 0.5}
        with pytest.raises(NotImplementedError, match="'softnms'"):
            mmcv.ops.batched_nms(self.BOXES, self.SCORES, self.CLASSES, config)


@stand_in
class TestRoiAlign:
    @pytest.fixture(autouse=True, params=["our kernel", "torchvision's kernel"])
    def kernel(self, request, monkeypatch: pytest.MonkeyPatch) -> None:
        if request.param == "torchvision's kernel":
            monkeypatch.setattr(roi_align, "_kernels", lambda: None)
        elif roi_align._kernels() is None:
            pytest.skip("no C++ compiler")

    # Row y, column x of the ramp holds 4 y + x, so that a bin's average is the ramp at the mean of
    # its sampling points.
    RAMP = torch.arange(16.0).reshape(1, 1, 4, 4)

    @pytest.mark.parametrize(
        ("roi", "size", "scale", "aligned", "expected"),
        [
            # Samples at 0, 1, 2, 3 both ways: the mean of 0..15.
            ([0, 0, 4, 4], 1, 1.0, True, [[7.5]]),
            # Samples {0, 1} and {2, 3}: 4 (0.5 or 2.5) + (0.5 or 2.5).
            ([0, 0, 4, 4], 2, 1.0, True, [[2.5, 4.5], [10.5, 12.5]]),
            # x from 0.5 by 2: samples 1, 2. y from -0.5 by 2: samples 0, 1.
            ([1, 0, 3, 2], 1, 1.0, True, [[4 * 0.5 + 1.5]]),
            # Not shifted: x samples 1.5, 2.5 and y samples 0.5, 1.5.
            ([1, 0, 3, 2], 1, 1.0, False, [[4 * 1.0 + 2.0]]),
            # The same region of an image twice as large.
            ([2, 0, 6, 4], 1, 0.5, True, [[4 * 0.5 + 1.5]]),
            ([2, 0, 6, 4], 1, 0.5, False, [[4 * 1.0 + 2.0]]),
            # Two rows of one column, each 1 high and 2 wide: y samples 0 and 1.
            ([1, 0, 3, 2], (2, 1), 1.0, True, [[1.5], [4 + 1.5]]),
            # An empty region: no samples and 0, or, not aligned, one pixel sampled at (1.5, 1.5).
            ([1, 1, 1, 1], 1, 1.0, True, [[0.0]]),
            ([1, 1, 1, 1], 1, 1.0, False, [[4 * 1.5 + 1.5]]),
        ],
    )
    def test_a_ramp_by_hand(self, roi, size, scale, aligned, expected):
        pool = mmcv.ops.RoIAlign(size, spatial_scale=scale, aligned=aligned)
        torch.testing.assert_close(
            pool(self.RAMP, torch.tensor([[0.0, *roi]])), torch.tensor([[expected]])
        )

    @pytest.mark.parametrize(
        ("sampling_ratio", "expected"),
        [
            (0, 1 / 4),  # samples at 0, 1 by 1, 2: one of four falls on the pixel
            (1, 1 / 4),  # one sample, half a pixel away both ways
            # Samples -1/6, 1/2, 7/6 by 5/6, 3/2, 13/6 weigh the pixel 0, 1/2, 5/6 by 5/6, 1/2, 0.
            (3, (4 / 3) ** 2 / 9),
        ],
    )
    def test_one_pixel_by_hand(self, sampling_ratio, expected):
        features = torch.zeros(1, 1, 4, 4)
        features[0, 0, 1, 1] = 1
        pool = mmcv.ops.RoIAlign(1, sampling_ratio=sampling_ratio)
        assert pool(features, torch.tensor([[0.0, 1, 0, 3, 2]])).item() == pytest.approx(expected)

    def test_a_gradient_by_hand(self):
        features = self.RAMP.clone().requires_grad_()
        # Two samples a side on the pixels of rows 0, 1 and columns 1, 2, each a quarter.
        pooled = mmcv.ops.RoIAlign(1)(features, torch.tensor([[0.0, 1, 0, 3, 2]]))
        (8 * pooled).sum().backward()
        expected = torch.tensor([[0.0, 2, 2, 0], [0, 2, 2, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
        torch.testing.assert_close(features.grad, expected[None, None])

    def test_the_batch_index_picks_the_image(self):
        features = torch.cat([self.RAMP, self.RAMP + 100]).requires_grad_()
        rois = torch.tensor([[1.0, 0, 0, 4, 4], [0.0, 0, 0, 4, 4]])
        pooled = mmcv.ops.RoIAlign(1)(features, rois)
        assert pooled.flatten().tolist() == [107.5, 7.5]
        pooled[0].sum().backward()
        assert features.grad.sum((1, 2, 3)).tolist() == [0, 1]

    @pytest.mark.parametrize("aligned", [True, False])
    @pytest.mark.parametrize("sampling_ratio", [0, 2])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_equals_torchvision(self, aligned, sampling_ratio, dtype):
        generator = torch.Generator().manual_seed(3)
        values = torch.randn(2, 3, 20, 25, generator=generator, dtype=dtype)
        grad = torch.randn(9, 3, 7, 5, generator=generator, dtype=dtype)
        rois = random_rois(9, 2, size=110, dtype=dtype)  # some reach out of the map of 80 by 100
        features, reference = values.clone().requires_grad_(), values.clone().requires_grad_()

        pool = mmcv.ops.RoIAlign((7, 5), 0.25, sampling_ratio, aligned=aligned)
        pooled = pool(features, rois)
        expected = torchvision.ops.roi_align(reference, rois, (7, 5), 0.25, sampling_ratio, aligned)
        assert pooled.dtype == dtype
        torch.testing.assert_close(pooled, expected)

        pooled.backward(grad)
        expected.backward(grad)
        torch.testing.assert_close(features.grad, reference.grad)

    @pytest.mark.parametrize("aligned", [True, False])
    @pytest.mark.parametrize("sampling_ratio", [0, 2])
    def test_gradcheck(self, aligned, sampling_ratio):
        features = torch.randn(2, 1, 5, 6, dtype=torch.float64, requires_grad=True)
        rois = random_rois(3, 2, size=6, dtype=torch.float64)
        pool = mmcv.ops.RoIAlign((2, 3), 0.8, sampling_ratio, aligned=aligned)
        assert torch.autograd.gradcheck(lambda x: pool(x, rois), features)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_is_float32_rounded_once(self, dtype):
        values = torch.randn(1, 2, 16, 16, generator=torch.Generator().manual_seed(4)).to(dtype)
        rois = random_rois(4, 1, size=16).to(dtype)
        features, reference = values.requires_grad_(), values.detach().float().requires_grad_()
        pooled = mmcv.ops.RoIAlign(3)(features, rois)
        expected = torchvision.ops.roi_align(reference, rois.float(), 3, aligned=True)
        assert pooled.dtype == dtype
        torch.testing.assert_close(pooled, expected.to(dtype), rtol=0, atol=0)

        pooled.sum().backward()
        expected.sum().backward()
        assert features.grad.dtype == dtype
        torch.testing.assert_close(features.grad, reference.grad.to(dtype), rtol=0, atol=0)

    def test_no_regions(self):
        features = torch.rand(2, 3, 8, 8, requires_grad=True)
        pooled = mmcv.ops.RoIAlign((7, 5))(features, torch.empty(0, 5))
        assert pooled.shape == (0, 3, 7, 5)
        pooled.sum().backward()
        assert torch.equal(features.grad, torch.zeros(2, 3, 8, 8))

    def test_layouts_other_than_contiguous(self):
        values = torch.randn(2, 4, 9, 9, generator=torch.Generator().manual_seed(5))
        rois = random_rois(6, 2, size=9)
        plain = values.clone().requires_grad_()
        last = values.to(memory_format=torch.channels_last).requires_grad_()
        strided = rois.t().contiguous().t()
        pool = mmcv.ops.RoIAlign(4)
        expected, pooled = pool(plain, rois), pool(last, strided)
        torch.testing.assert_close(pooled, expected)
        weight = torch.randn(6, 4, 4, 4, generator=torch.Generator().manual_seed(6))
        (expected * weight).sum().backward()
        (pooled * weight).sum().backward()
        torch.testing.assert_close(last.grad, plain.grad)

    def test_backward_adds_to_the_buffer(self):
        grad_input = torch.ones(1, 1, 4, 4)
        nothing = torch.empty(0)
        ops.roi_align_backward(
            torch.ones(1, 1, 1, 1),
            torch.tensor([[0.0, 0, 0, 4, 4]]),
            nothing,
            nothing,
            grad_input,
            aligned_height=1,
            aligned_width=1,
            spatial_scale=1.0,
            sampling_ratio=0,
            pool_mode=1,
            aligned=True,
        )
        torch.testing.assert_close(grad_input, torch.full((1, 1, 4, 4), 1 + 1 / 16))

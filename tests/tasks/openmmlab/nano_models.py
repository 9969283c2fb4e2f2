"""The spiking models of `configs/_base_/models`, narrow and on a small backbone, with a batch."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import PixelData

from spikebench_tasks.detection import registered as detection
from spikebench_tasks.segmentation import registered as segmentation

assert detection
assert segmentation

FOLDER = Path(__file__).parents[3] / "configs" / "_base_" / "models"
WIDTH, CLASSES, SIDE = 16, 3, 64
DETECTORS = ("mask_rcnn", "faster_rcnn", "retinanet")
SEGMENTORS = ("semantic_fpn", "upernet")
READS_REAL_VALUES = {"roi_head.bbox_head.fc_cls", "roi_head.bbox_head.fc_reg"}

_FROM_SCRATCH = {"initial_current": 2.0}
_PYRAMID = {"out_channels": WIDTH, **_FROM_SCRATCH}
_RPN = {"in_channels": WIDTH, "feat_channels": WIDTH, **_FROM_SCRATCH}
_EXTRACTOR = {"out_channels": WIDTH, "finest_scale": 14}
_BOXES = {
    "in_channels": WIDTH,
    "fc_out_channels": 32,
    "num_classes": CLASSES,
    **_FROM_SCRATCH,
}
_MASKS = {
    "in_channels": WIDTH,
    "conv_out_channels": WIDTH,
    "num_classes": CLASSES,
    **_FROM_SCRATCH,
}
_DECODED = {"channels": WIDTH, "num_classes": CLASSES, **_FROM_SCRATCH}
_SIZE = {"size": (SIDE, SIDE)}
_FASTER = {
    "neck": _PYRAMID,
    "rpn_head": _RPN,
    "roi_head": {"bbox_roi_extractor": _EXTRACTOR, "bbox_head": _BOXES},
    "test_cfg": {"rpn": {"max_per_img": 30}, "rcnn": {"score_thr": 0.0, "max_per_img": 10}},
}
CHANGES: dict[str, dict[str, Any]] = {
    "faster_rcnn": _FASTER,
    "mask_rcnn": {
        **_FASTER,
        "roi_head": {
            **_FASTER["roi_head"],
            "mask_roi_extractor": _EXTRACTOR,
            "mask_head": _MASKS,
        },
    },
    "retinanet": {
        "neck": _PYRAMID,
        "bbox_head": {
            "in_channels": WIDTH,
            "feat_channels": WIDTH,
            "stacked_convs": 2,
            "num_classes": CLASSES,
            **_FROM_SCRATCH,
        },
        "test_cfg": {"score_thr": 0.0, "max_per_img": 10},
    },
    "semantic_fpn": {"data_preprocessor": _SIZE, "neck": _PYRAMID, "decode_head": _DECODED},
    "upernet": {
        "data_preprocessor": _SIZE,
        "decode_head": _DECODED,
        "auxiliary_head": _DECODED,
    },
}


def build(name: str, **backbone: Any) -> Any:
    """A model by the name of its file, with fixed random weights and without dropout.

    Args:
        name: in `DETECTORS` or `SEGMENTORS`.
        **backbone: what its configuration says of the backbone.
    """
    config = Config.fromfile(FOLDER / f"{name}.py")
    changes = {"backbone": {"name": "meta_spikeformer_nano", **backbone}, **CHANGES[name]}
    config.merge_from_dict({"model": changes})
    MMLogger.get_instance("mmengine").setLevel(logging.WARNING)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(scope(name)):
        model = MODELS.build(config.model)
        model.init_weights()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout2d):
            module.p = 0.0
    return model


def scope(name: str) -> str:
    """The package of a model."""
    return "mmdet" if name in DETECTORS else "mmseg"


def batch(name: str, images: int = 2) -> dict[str, Any]:
    """Random images with boxes, masks or label maps, as a data loader gives them."""
    if name in DETECTORS:
        from mmdet.testing import demo_mm_inputs

        return demo_mm_inputs(
            images,
            [(3, SIDE, SIDE)] * images,
            num_items=[3] * images,
            num_classes=CLASSES,
            with_mask=True,
        )
    from mmseg.structures import SegDataSample

    generator = torch.Generator().manual_seed(0)
    samples = []
    for _ in range(images):
        labels = torch.randint(CLASSES, (1, SIDE, SIDE), generator=generator)
        samples.append(
            SegDataSample(
                gt_sem_seg=PixelData(data=labels),
                metainfo={"img_shape": (SIDE, SIDE), "ori_shape": (SIDE, SIDE)},
            )
        )
    pixels = torch.randint(256, (images, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    return {"inputs": list(pixels), "data_samples": samples}

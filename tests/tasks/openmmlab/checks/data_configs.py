"""Configurations of data that are there, and what is found wrong with them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spikebench.datacheck import SplitCheck
from spikebench.files import data_root
from spikebench_tasks.openmmlab.checks import data as checks

CONFIGS = Path(__file__).parents[4] / "configs"


def check_data(config: Mapping[str, Any], cached: bool = False) -> list[SplitCheck]:
    return checks.check_data(config, data_root(), cached)


def require_sound_data(config: Mapping[str, Any]) -> None:
    checks.require_sound_data(config, data_root())


def coco() -> dict[str, Any]:
    def dataset(split: str, **options: Any) -> dict[str, Any]:
        return {
            "type": "CocoDataset",
            "data_root": "data/coco/",
            "ann_file": f"annotations/instances_{split}2017.json",
            "data_prefix": {"img": f"{split}2017/"},
            "pipeline": [
                {"type": "LoadImageFromFile"},
                {"type": "LoadAnnotations", "with_bbox": True, "with_mask": True},
            ],
            **options,
        }

    test = {"dataset": dataset("val", test_mode=True)}
    scored = {"type": "CocoMetric", "ann_file": "data/coco/annotations/instances_val2017.json"}
    return {
        "default_scope": "mmdet",
        "model": {
            "backbone": {"num_classes": 7},
            "rpn_head": {"num_classes": 1},
            "roi_head": {"bbox_head": {"num_classes": 80}, "mask_head": {"num_classes": 80}},
        },
        "train_dataloader": {
            "dataset": dataset("train", filter_cfg={"filter_empty_gt": True, "min_size": 32})
        },
        "val_dataloader": test,
        "test_dataloader": copy.deepcopy(test),
        "test_evaluator": {**scored, "metric": ["bbox", "segm"]},
    }


def segmentation(kind: str, folder: str, classes: int, *splits: dict[str, Any]) -> dict[str, Any]:
    steps = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}]
    train, test = (
        {"type": kind, "data_root": f"data/{folder}", "pipeline": steps, **split}
        for split in splits
    )
    return {
        "default_scope": "mmseg",
        "model": {
            "decode_head": {"num_classes": classes},
            "auxiliary_head": [{"num_classes": classes}],
        },
        "train_dataloader": {"dataset": train},
        "test_dataloader": {"dataset": {**test, "test_mode": True}},
        "test_evaluator": {"type": "IoUMetric"},
    }


def prefixes(images: str, labels: str) -> dict[str, Any]:
    return {"data_prefix": {"img_path": images, "seg_map_path": labels}}


def ade20k() -> dict[str, Any]:
    splits = [prefixes(f"images/{s}", f"annotations/{s}") for s in ("training", "validation")]
    return segmentation("ADE20KDataset", "ade20k", 150, *splits)


def voc2012() -> dict[str, Any]:
    splits = [
        {
            **prefixes("JPEGImages", "SegmentationClass"),
            "ann_file": f"ImageSets/Segmentation/{s}.txt",
        }
        for s in ("train", "val")
    ]
    return segmentation("PascalVOCDataset", "VOCdevkit/VOC2012", 21, *splits)


def cityscapes() -> dict[str, Any]:
    splits = [prefixes(f"leftImg8bit/{s}", f"gtFine/{s}") for s in ("train", "val")]
    return segmentation("CityscapesDataset", "cityscapes", 19, *splits)


KINDS = {"coco": coco, "ade20k": ade20k, "voc2012": voc2012, "cityscapes": cityscapes}
FIRST = {  # image and label map of the first training example
    "coco": ("coco/train2017/000000000001.jpg", None),
    "ade20k": (
        "ade20k/images/training/ADE_train_00000000.jpg",
        "ade20k/annotations/training/ADE_train_00000000.png",
    ),
    "voc2012": (
        "VOCdevkit/VOC2012/JPEGImages/2007_train0.jpg",
        "VOCdevkit/VOC2012/SegmentationClass/2007_train0.png",
    ),
    "cityscapes": (
        "cityscapes/leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png",
        "cityscapes/gtFine/train/aachen/aachen_000000_000019_gtFine_labelTrainIds.png",
    ),
}


def found(config: dict[str, Any]) -> dict[str, list[str]]:
    return {one.split: one.errors for one in check_data(config)}

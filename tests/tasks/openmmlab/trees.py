"""Small data sets in the layouts that MMDetection and MMSegmentation know, and their files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.datasets import CocoDataset
from PIL import Image
from pycocotools import mask as coco_mask

COCO_CLASSES = CocoDataset.METAINFO["classes"]
IMAGES = 3


def picture(path: Path, rng: np.random.Generator, height: int, width: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    coarse.resize((width, height), Image.Resampling.BICUBIC).save(path)


def label_map(
    path: Path, rng: np.random.Generator, shape: tuple[int, int], labels: Sequence[int]
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = rng.choice(np.array(labels, dtype=np.uint8), (4, 4))
    blocks = coarse.repeat(20, 0).repeat(20, 1)[: shape[0], : shape[1]]
    Image.fromarray(blocks).save(path)


def coco_split(
    annotations: Path,
    images: Path,
    rng: np.random.Generator,
    classes: Sequence[str] = COCO_CLASSES,
    used: Sequence[int] = (0, 38, 79),
) -> None:
    """Three images with two objects each, masks in run lengths; ids are no indices."""
    listed: list[dict] = []
    objects: list[dict] = []
    for index in range(IMAGES):
        height, width = 48 + 8 * index, 70
        name = f"{index + 1:012d}.jpg"
        picture(images / name, rng, height, width)
        listed.append({"id": index + 1, "file_name": name, "height": height, "width": width})
        for left in (4, 38):
            mask = np.zeros((height, width), dtype=np.uint8, order="F")
            mask[6:40, left : left + 26] = 1
            encoded = coco_mask.encode(mask)
            objects.append(
                {
                    "id": len(objects) + 1,
                    "image_id": index + 1,
                    "category_id": 2 * int(rng.choice(used)) + 1,
                    "bbox": [left, 6, 26, 34],
                    "area": 26 * 34,
                    "iscrowd": 0,
                    "segmentation": {**encoded, "counts": encoded["counts"].decode()},
                }
            )
    categories = [{"id": 2 * k + 1, "name": name} for k, name in enumerate(classes)]
    annotations.parent.mkdir(parents=True, exist_ok=True)
    write(annotations, {"images": listed, "annotations": objects, "categories": categories})


def coco(root: Path, rng: np.random.Generator) -> None:
    for split in ("train2017", "val2017"):
        path = root / "coco" / "annotations" / f"instances_{split}.json"
        coco_split(path, root / "coco" / split, rng)


def ade20k(root: Path, rng: np.random.Generator) -> None:
    folder = root / "ade20k"
    for split, prefix in (("training", "train"), ("validation", "val")):
        for index in range(IMAGES):
            height, width = 50 + 10 * index, 72
            name = f"ADE_{prefix}_{index:08d}"
            picture(folder / "images" / split / f"{name}.jpg", rng, height, width)
            path = folder / "annotations" / split / f"{name}.png"
            label_map(path, rng, (height, width), [0, 1, 2, 75, 150])


def voc2012(root: Path, rng: np.random.Generator) -> None:
    folder = root / "VOCdevkit" / "VOC2012"
    for split in ("train", "val"):
        names = [f"2007_{split}{index}" for index in range(IMAGES)]
        for name in names:
            picture(folder / "JPEGImages" / f"{name}.jpg", rng, 60, 72)
            path = folder / "SegmentationClass" / f"{name}.png"
            label_map(path, rng, (60, 72), [0, 1, 20, 255])
        listed = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_text("\n".join(names) + "\n")


def cityscapes(root: Path, rng: np.random.Generator) -> None:
    folder = root / "cityscapes"
    for split, city in (("train", "aachen"), ("val", "munster")):
        for index in range(IMAGES):
            name = f"{city}_{index:06d}_000019"
            path = folder / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png"
            picture(path, rng, 64, 80)
            path = folder / "gtFine" / split / city / f"{name}_gtFine_labelTrainIds.png"
            label_map(path, rng, (64, 80), [0, 1, 18, 255])


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")

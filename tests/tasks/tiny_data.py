"""Every data set that configurations name, tiny and in the layout of the published one.

Between them they have polygons, run lengths, a crowd and boxes alone, categories whose ids are not
their order, and labels that are ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image
from pycocotools import mask as coco_mask

from tests.tasks.openmmlab.trees import (
    ade20k,
    cityscapes,
    coco,
    coco_split,
    read,
    voc2012,
    write,
)


def make_tiny(root: Path, name: str) -> None:
    """Write the data set that lies in the folder `name` below a data root: three images a split.

    Raises:
        KeyError: none is known by that name.
    """
    TREES[name](root, np.random.default_rng(0))


def coco_with_polygons(root: Path, rng: Generator) -> None:
    """As COCO's: polygons, and where it is crowded run lengths that are not compressed."""
    coco(root, rng)
    for path in (root / "coco" / "annotations").iterdir():
        content = read(path)
        for one in content["annotations"]:
            left, top, width, height = one["bbox"]
            right, bottom = left + width, top + height
            one["segmentation"] = [[left, top, right, top, right, bottom, left, bottom]]
        last = content["annotations"][-1]
        image = next(each for each in content["images"] if each["id"] == last["image_id"])
        height, width = image["height"], image["width"]
        rest = height * width - 2 * height
        crowd = {"segmentation": {"size": [height, width], "counts": [0, 2 * height, rest]}}
        crowd |= {"id": last["id"] + 1, "bbox": [0, 0, 2, height], "area": 2 * height, "iscrowd": 1}
        content["annotations"].append({**last, **crowd})
        write(path, content)


def bccd(root: Path, rng: Generator) -> None:
    """Boxes alone, and all images in one folder."""
    folder = root / "bccd"
    for split in ("train", "val", "test"):
        path = folder / "annotations" / f"instances_{split}.json"
        coco_split(path, folder / "images", rng, ("RBC", "WBC", "Platelets"), (0, 1, 2))
        content = read(path)
        for one in content["annotations"]:
            del one["segmentation"]
        for image in content["images"]:
            name = f"BloodImage_{split}{image['file_name']}"
            (folder / "images" / image["file_name"]).rename(folder / "images" / name)
            image["file_name"] = name
        write(path, content)


def nuclei200(root: Path, rng: Generator) -> None:
    """Masks in run lengths, and label maps in which what they cover is 1."""
    folder = root / "nuclei200"
    for split in ("train", "val"):
        path = folder / "annotations" / f"instances_{split}.json"
        images, labels = folder / "images" / split, folder / "semantic" / split
        coco_split(path, images, rng, ("nucleus",), (0,))
        labels.mkdir(parents=True)
        content = read(path)
        for image in content["images"]:
            old = images / image["file_name"]
            image["file_name"] = f"{old.stem}.png"
            with Image.open(old) as opened:
                opened.save(images / image["file_name"])
            old.unlink()
            masks = [
                coco_mask.decode(one["segmentation"])
                for one in content["annotations"]
                if one["image_id"] == image["id"]
            ]
            Image.fromarray(np.max(masks, axis=0)).save(labels / image["file_name"])
        write(path, content)


TREES: dict[str, Callable[[Path, Generator], None]] = {
    "VOCdevkit": voc2012,
    "ade20k": ade20k,
    "bccd": bccd,
    "cityscapes": cityscapes,
    "coco": coco_with_polygons,
    "nuclei200": nuclei200,
}

"""Scenes composed of handwritten digits, for detection and segmentation without a download.

Every scene is a grey, noisy 128x128 image with 3 to 6 digits of varied size, place and brightness,
some overlapping. Digits drawn later cover earlier ones; boxes and masks are of what stays visible.
Scenes of the test split hold glyphs of the test split only. On disk, below the data root:

    digit_scenes/
        images/{train,test}/0000.png           grey images
        labels/{train,test}/0000.png           label maps: 0 background, 1 to 10 the digits 0 to 9
        annotations/instances_{train,test}.json  COCO: boxes, run-length masks; category = digit + 1
        manifest.json                          SHA-256 of every file
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from spikebench.files import sha256
from spikebench_tasks.datasets import DatasetError, Split
from spikebench_tasks.datasets.digits import CLASSES, load_glyphs

NAME = "digit_scenes"
VERSION = 1
SIZE = 128
COUNTS: dict[Split, int] = {"train": 2000, "test": 100}
DIGITS_PER_SCENE = (3, 6)
DIGIT_SIZE = (28, 56)
_VISIBLE = 0.6
_INK = 0.4
_TRIES = 30


def ensure_digit_scenes(data_root: Path) -> Path:
    """Make the scenes below `data_root` where they are not there yet, and verify them.

    Returns:
        The folder `data_root/digit_scenes`.

    Raises:
        DatasetError: a file is missing or corrupt, or the folder cannot be written.
    """
    folder = Path(data_root) / NAME
    if not folder.exists():
        _make(folder)
    _verify(folder)
    return folder


def _make(folder: Path) -> None:
    """Write all files to a temporary folder, then rename it; the first of several writers wins."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{NAME}."))
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        for split in COUNTS:
            _write_split(temporary, split)
        files = sorted(path for path in temporary.rglob("*") if path.is_file())
        digests = {path.relative_to(temporary).as_posix(): sha256(path) for path in files}
        manifest = {"version": VERSION, "files": digests}
        (temporary / "manifest.json").write_text(json.dumps(manifest, indent=1))
        temporary.chmod(0o755)
        try:
            os.rename(temporary, folder)
        except OSError:
            if not folder.exists():
                raise
    except OSError as error:
        raise _unwritable(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unwritable(folder: Path, error: OSError) -> DatasetError:
    reason = error.strerror or error
    return DatasetError(f"{folder} cannot be written ({reason}); choose another --data-root")


def _verify(folder: Path) -> None:
    remedy = f"delete {folder} to have it made again"
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        digests, version = dict(manifest["files"]), manifest["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{folder / 'manifest.json'} cannot be read; {remedy}") from error
    if version != VERSION:
        raise DatasetError(f"{folder} holds version {version}, expected {VERSION}; {remedy}")
    for name, digest in digests.items():
        path = folder / name
        if not path.is_file():
            raise DatasetError(f"{path} is missing; {remedy}")
        if sha256(path) != digest:
            raise DatasetError(f"{path} is corrupt (its SHA-256 differs); {remedy}")


def _write_split(folder: Path, split: Split) -> None:
    from pycocotools import mask as coco_mask

    for kind in ("images", "labels"):
        (folder / kind / split).mkdir(parents=True)
    (folder / "annotations").mkdir(exist_ok=True)
    images: list[dict] = []
    annotations: list[dict] = []
    for index in range(COUNTS[split]):
        name = f"{index:04d}.png"
        image, instances = compose_scene(split, index)
        label_map = np.zeros((SIZE, SIZE), dtype=np.uint8)
        for digit, mask in instances:
            label_map[mask] = digit + 1
            encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
            rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
            x, y = int(columns[0]), int(rows[0])
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index,
                    "category_id": digit + 1,
                    "bbox": [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y],
                    "area": int(mask.sum()),
                    "iscrowd": 0,
                    "segmentation": {"size": [SIZE, SIZE], "counts": encoded["counts"].decode()},
                }
            )
        Image.fromarray(image).save(folder / "images" / split / name)
        Image.fromarray(label_map).save(folder / "labels" / split / name)
        images.append({"id": index, "file_name": name, "width": SIZE, "height": SIZE})
    coco = {
        "info": {"description": "digit scenes", "version": str(VERSION)},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": d + 1, "name": name} for d, name in enumerate(CLASSES)],
    }
    (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(coco))


def compose_scene(split: Split, index: int) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """Scene number `index` of a split.

    Returns:
        The image (128, 128) uint8, and for each digit its class and visible mask (128, 128) bool.
    """
    rng = np.random.default_rng([VERSION, sorted(COUNTS).index(split), index])
    glyphs = load_glyphs(split)
    coarse = Image.fromarray(rng.uniform(40, 110, (4, 4)).astype(np.float32))
    canvas = np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC)).copy()
    canvas += rng.normal(0, 12, canvas.shape)
    digits: list[int] = []
    masks: list[np.ndarray] = []
    areas: list[int] = []
    for _ in range(rng.integers(DIGITS_PER_SCENE[0], DIGITS_PER_SCENE[1] + 1)):
        for _ in range(_TRIES):
            glyph = int(rng.integers(len(glyphs.labels)))
            alpha = _place(glyphs.images[glyph], rng)
            mask = alpha > _INK
            rest = [old & ~mask for old in masks]
            if all(m.sum() >= _VISIBLE * area for m, area in zip(rest, areas, strict=True)):
                break
        else:
            break
        canvas = canvas * (1 - alpha) + rng.uniform(150, 255) * alpha
        digits.append(int(glyphs.labels[glyph]))
        masks = [*rest, mask]
        areas.append(int(mask.sum()))
    image = np.clip(canvas, 0, 255).astype(np.uint8)
    return image, list(zip(digits, masks, strict=True))


def _place(glyph: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Opacity (128, 128) in [0, 1] of a glyph at a random size and place."""
    ink = glyph[:, glyph.any(0)][glyph.any(1)]
    height = int(rng.integers(DIGIT_SIZE[0], DIGIT_SIZE[1] + 1))
    width = max(8, round(height * ink.shape[1] / ink.shape[0]))
    drawn = Image.fromarray(ink).resize((width, height), Image.Resampling.BICUBIC)
    top, left = rng.integers(0, SIZE - height + 1), rng.integers(0, SIZE - width + 1)
    alpha = np.zeros((SIZE, SIZE))
    alpha[top : top + height, left : left + width] = np.clip(np.asarray(drawn), 0, 1)
    return alpha

"""Reads a file of annotations in COCO's format, keeping only what a check needs.

Polygons and URLs are never all in memory: a file of COCO's size takes a fraction of what
pycocotools takes to read it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

IMAGE_KEYS = ("id", "file_name", "width", "height")
ANNOTATION_KEYS = ("id", "image_id", "category_id", "bbox", "area")
_LARGEST = 1e9  # pixels; what is beyond is no place in an image


class Picture(NamedTuple):
    """An entry of `images`, its values as they are in the file."""

    id: Any
    file_name: Any
    width: Any
    height: Any


class Annotated(NamedTuple):
    """An entry of `annotations`.

    Attributes:
        id: of the annotation.
        image: id of its image.
        category: id of its category.
        box: x, y, width, height in pixels.
        area: in pixels.
        crowd: whether it is of many objects together.
        ignored: whether it is marked to be ignored.
        mask: "polygons", "points" (polygons of fewer than 3), "runs", "blank" (runs without a
            pixel), "none", or "" where masks are not looked at.
        mask_size: width and height that a mask in run lengths has.
        problem: what is wrong with it on its own; other values may then be of any type.
    """

    id: Any
    image: Any
    category: Any
    box: Any
    area: Any
    crowd: bool
    ignored: bool
    mask: str
    mask_size: tuple[int, int] | None
    problem: str | None


def read_coco(path: Path, masks: bool) -> Any:
    """The content of a file, images and annotations reduced where they have all keys they need.

    Args:
        path: of the file.
        masks: whether to look at masks.

    Raises:
        ValueError: it is no JSON file.
    """
    try:
        with path.open(encoding="utf-8") as stream:
            return json.load(stream, object_hook=_reduce(masks))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def run_lengths(counts: str | Sequence[int]) -> np.ndarray:
    """The runs of a run-length mask, pixels without and with the object in turns, int64.

    Args:
        counts: the runs, or COCO's text for them: six bits a character from "0" on, of which five
            are of a number, lowest first, and one says that it goes on; from the fourth run on
            numbers are what is added to the run before the last.

    Raises:
        ValueError: it is no such text, or a run is negative.

    Example:
        >>> run_lengths("5115").tolist()
        [5, 1, 1, 6]
    """
    if isinstance(counts, str):
        bits = np.frombuffer(counts.encode("latin-1"), dtype=np.uint8).astype(np.int64) - ord("0")
        ends = np.flatnonzero((bits & 32) == 0)
        if not len(bits) or bits.min() < 0 or bits.max() > 63 or not len(ends):
            raise ValueError("no run lengths")
        if ends[-1] != len(bits) - 1:
            raise ValueError("run lengths are cut short")
        starts = np.concatenate([[0], ends[:-1] + 1])
        place = 5 * (np.arange(len(bits)) - np.repeat(starts, ends - starts + 1))
        if place.max() > 30:
            raise ValueError("a run length is too long")
        runs = np.add.reduceat((bits & 31) << place, starts)
        runs -= np.where(bits[ends] & 16, np.int64(32) << place[ends], 0)
        runs[1::2] = runs[1::2].cumsum()
        runs[2::2] = runs[2::2].cumsum()
    else:
        runs = np.array([int(count) for count in counts], dtype=np.int64)
    if (runs < 0).any():
        raise ValueError("a run length is negative")
    return runs


def _reduce(masks: bool) -> Callable[[dict], Any]:
    """Turns parsed JSON objects into small tuples in place of dictionaries."""

    def reduce(node: dict) -> Any:
        if all(key in node for key in ANNOTATION_KEYS):
            return _annotated(node, masks)
        if all(key in node for key in IMAGE_KEYS):
            return Picture(*(node[key] for key in IMAGE_KEYS))
        return node

    return reduce


def _annotated(node: dict, masks: bool) -> Annotated:
    problem, box = None, None
    if are_numbers(node["bbox"]) and len(node["bbox"]) == 4:
        box = tuple(node["bbox"])
    else:
        problem = f"has bbox {short(node['bbox'])}; expected [x, y, width, height]"
    if not are_numbers([node["area"]]):
        problem = f"has area {short(node['area'])}; expected a number of pixels"
    for key in ("id", "image_id", "category_id"):
        if not isinstance(node[key], (int, float, str)):
            problem = f"has {key} {short(node[key])}; expected a number"
    kind, size = "", None
    if masks:
        kind, size, wrong = _mask(node.get("segmentation"))
        problem = problem or wrong
    return Annotated(
        id=short(node["id"]) if problem else node["id"],
        image=node["image_id"],
        category=node["category_id"],
        box=box,
        area=node["area"],
        crowd=bool(node.get("iscrowd")),
        ignored=bool(node.get("ignore")),
        mask=kind,
        mask_size=size,
        problem=problem,
    )


def _mask(given: Any) -> tuple[str, tuple[int, int] | None, str | None]:
    """The kind of a mask, its width and height if it says them, and what is wrong with it."""
    if not given:
        return "none", None, None
    if isinstance(given, list):
        if not all(are_numbers(part) for part in given):
            return "", None, "has a mask that is neither polygons nor run lengths"
        whole = any(len(part) >= 6 and len(part) % 2 == 0 for part in given)
        return ("polygons" if whole else "points"), None, None
    size: Any = given.get("size") if isinstance(given, dict) else None
    counts: Any = given.get("counts") if isinstance(given, dict) else None
    if not (are_numbers(size) and len(size) == 2 and isinstance(counts, str | list)):
        return "", None, "has a mask that is neither polygons nor run lengths"
    height, width = map(int, size)
    try:
        runs = run_lengths(counts)
    except (ValueError, TypeError, OverflowError) as error:
        return "", None, f"has a mask in run lengths that cannot be read: {error}"
    if runs.sum() != height * width:
        wrong = f"has a mask in run lengths of {runs.sum()} pixels; expected {width}x{height}"
        return "", None, wrong
    return ("runs" if runs[1::2].any() else "blank"), (width, height), None


def are_numbers(values: Any) -> bool:
    """Whether a value is a list of numbers that pixels can be counted in."""
    return isinstance(values, list) and all(
        isinstance(one, (int, float)) and -_LARGEST <= one <= _LARGEST for one in values
    )


def short(value: Any, most: int = 60) -> str:
    """A value as an error shows it."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}..."

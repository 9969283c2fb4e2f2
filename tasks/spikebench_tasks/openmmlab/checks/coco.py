"""Checks of annotations in COCO's format: what MMDetection fails on or silently drops.

MMDetection reads such a file as `CocoDataset.load_data_list` and `LoadAnnotations` do: annotations
of unknown categories, without area or outside their image go without a word, and classes are
numbered in the file's order. What is wrong with a file becomes an error here; what has a meaning
but no effect is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spikebench_tasks.openmmlab.checks.coco_file import (
    ANNOTATION_KEYS,
    IMAGE_KEYS,
    Annotated,
    Picture,
    are_numbers,
    read_coco,
    short,
)
from spikebench_tasks.openmmlab.checks.images import Listed


@dataclass(frozen=True)
class Reading:
    """How a data set reads its annotations.

    Attributes:
        classes: names of its classes.
        named: whether the configuration names them, so that others are left out on purpose.
        images: the folder that file names are relative to.
        masks: what reads masks, as errors call it; None where nothing does.
        polygons_only: whether masks in run lengths are left out.
        without_empty: whether those without annotations are.
        without_crowds: whether those with nothing but crowds are.
        smallest: those with a side below are; pixels.
        scored: whether the annotations are what predictions are compared with.
    """

    classes: Sequence[str]
    named: bool = True
    images: Path = Path()
    masks: str | None = None
    polygons_only: bool = False
    without_empty: bool = False
    without_crowds: bool = False
    smallest: int = 0
    scored: bool = False


@dataclass
class Coco:
    """The result for a file: images used, in order; annotations; errors; what is unused."""

    images: list[Listed] = field(default_factory=list)
    annotations: int = 0
    errors: list[str] = field(default_factory=list)
    skips: Counter[str] = field(default_factory=Counter)


def check_coco(path: Path, reading: Reading) -> Coco:
    """Check a file of annotations."""
    try:
        content = read_coco(path, masks=reading.masks is not None)
    except ValueError as error:
        return Coco(errors=[f"{path} is no JSON file, or cut short: {error}; get it again"])
    lists = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(k), list) for k in lists):
        return Coco(errors=[f"{path} is not in COCO's format; expected an object with {lists}"])
    found = Coco()
    pictures = _pictures(path, content["images"], found)
    categories = _Categories(path, content["categories"], reading, found)
    seen: set[Any] = set()
    annotated, kept, masks = set(), set(), _Masks(path, reading)
    for index, one in enumerate(content["annotations"]):
        if not isinstance(one, Annotated):
            found.errors.append(f"{path}: annotations[{index}] {_lacking(one, ANNOTATION_KEYS)}")
            continue
        found.annotations += 1
        wrong = one.problem or _misplaced(one, pictures, categories.names, seen, reading.scored)
        if wrong:
            found.errors.append(f"{path}: annotation {one.id} {wrong}")
            continue
        seen.add(one.id)
        picture = pictures[one.image]
        if categories.known(one.category):
            annotated.add(one.image)
        left_out = categories.left_out(one.category) or _left_out(one, picture, reading.scored)
        if left_out:
            found.skips[left_out] += 1
            continue
        if one.crowd:
            found.skips["crowd annotations, ignored"] += 1
        else:
            kept.add(one.image)
        masks.add(one, picture, found)
    found.errors.extend([*categories.errors(), *masks.errors()])
    found.images = list(_used(pictures, annotated, kept, reading, found.skips))
    return found


def _pictures(path: Path, listed: list, found: Coco) -> dict[Any, Picture]:
    pictures: dict[Any, Picture] = {}
    for index, one in enumerate(listed):
        if not isinstance(one, Picture):
            found.errors.append(f"{path}: images[{index}] {_lacking(one, IMAGE_KEYS)}")
        elif not isinstance(one.id, (int, float, str)) or not isinstance(one.file_name, str):
            found.errors.append(
                f"{path}: images[{index}] has id {short(one.id)} and file_name "
                f"{short(one.file_name)}; expected a number and the name of a file"
            )
        elif not (are_numbers([one.width, one.height]) and min(one.width, one.height) >= 1):
            found.errors.append(
                f"{path}: image {one.id} ({one.file_name}) has width {short(one.width)} and "
                f"height {short(one.height)}; expected pixels"
            )
        elif one.id in pictures:
            found.errors.append(
                f"{path}: image id {one.id} stands for both {pictures[one.id].file_name} and "
                f"{one.file_name}; give each image an id of its own"
            )
        else:
            pictures[one.id] = one
    return pictures


class _Categories:
    """Compares the categories of a file with the classes of a data set."""

    def __init__(self, path: Path, listed: list, reading: Reading, found: Coco) -> None:
        self._path, self._reading = path, reading
        self.names: dict[Any, str] = {}
        self._unknown: Counter[Any] = Counter()
        for index, one in enumerate(listed):
            if not isinstance(one, dict) or not all(k in one for k in ("id", "name")):
                found.errors.append(f"{path}: categories[{index}] {_lacking(one, ('id', 'name'))}")
            elif not isinstance(one["id"], (int, float, str)) or not isinstance(one["name"], str):
                found.errors.append(
                    f"{path}: categories[{index}] is {short(one)}; expected an id and a name"
                )
            elif one["id"] in self.names or one["name"] in self.names.values():
                found.errors.append(
                    f"{path}: category {one['name']!r} (id {one['id']}) has the name or the id of "
                    "another; give each its own"
                )
            else:
                self.names[one["id"]] = one["name"]

    def known(self, category: Any) -> bool:
        return self.names[category] in self._reading.classes

    def left_out(self, category: Any) -> str | None:
        """Why annotations of a category are left out; None if they are not."""
        if self.known(category):
            return None
        self._unknown[category] += 1
        return "annotations of categories that are none of the classes"

    def errors(self) -> Iterator[str]:
        """Classes and categories that do not fit: labels would be shifted, or silently lost."""
        classes, named = list(self._reading.classes), list(self.names.values())
        absent = [one for one in classes if one not in named]
        remedy = f"set metainfo.classes of the data set to {_some(named)}, in this order"
        if absent:
            yield (
                f"{self._path} has no category for {len(absent)} of the {len(classes)} classes: "
                f"{_some(absent)}; {remedy}"
            )
            return
        ordered = [one for one in named if one in classes]
        if ordered != classes:
            yield (
                f"{self._path} has its categories in the order {_some(ordered)}, in which "
                f"MMDetection numbers them, but the classes are {_some(classes)}; {remedy}"
            )
        if not self._reading.named:
            for category, count in self._unknown.items():
                yield (
                    f"{self._path}: category {self.names[category]!r} (id {category}, {count} "
                    f"annotations) is none of the {len(classes)} classes; {remedy}"
                )


class _Masks:
    """Checks masks against how they are read; one error per kind, however many annotations."""

    def __init__(self, path: Path, reading: Reading) -> None:
        self._path, self._reading = path, reading
        self._none: list[Any] = []
        self._vanishing: list[Any] = []

    def add(self, one: Annotated, picture: Picture, found: Coco) -> None:
        if self._reading.masks is None:
            return
        if one.mask == "none":
            self._none.append(one.id)
        elif one.mask == "points":
            found.skips["masks of fewer than 3 points, ignored"] += 1
        elif one.mask == "blank":
            found.skips["masks without a pixel"] += 1
        elif one.mask == "runs" and self._reading.polygons_only and not one.crowd:
            self._vanishing.append(one.id)
        if one.mask_size not in (None, (picture.width, picture.height)):
            width, height = one.mask_size or (0, 0)
            found.errors.append(
                f"{self._path}: annotation {one.id} has a mask of {width}x{height} pixels on "
                f"{picture.file_name}, of {picture.width}x{picture.height}"
            )

    def errors(self) -> Iterator[str]:
        if self._none:
            yield (
                f"{self._path}: {len(self._none)} annotations have no mask (the first is "
                f"annotation {self._none[0]}), which {self._reading.masks} needs; use a file that "
                "has them, or a detector of boxes only"
            )
        if self._vanishing:
            yield (
                f"{self._path}: {len(self._vanishing)} masks are run lengths (the first is of "
                f"annotation {self._vanishing[0]}), which LoadAnnotations with poly2mask=False "
                "leaves out without a word; set poly2mask=True"
            )


def _misplaced(
    one: Annotated,
    pictures: Mapping[Any, Picture],
    names: Mapping[Any, str],
    seen: set[Any],
    scored: bool,
) -> str | None:
    """Why an annotation belongs to nothing in its file."""
    if one.id in seen:
        return "is there twice; give each annotation an id of its own"
    if scored and one.id == 0:
        return "has the id that stands for no match in COCO's scores; number annotations from 1"
    if one.image not in pictures:
        return f"is of image {one.image}, which the file does not list"
    if one.category not in names:
        return f"is of category {one.category}, which the file does not list"
    return None


def _left_out(one: Annotated, picture: Picture, scored: bool) -> str | None:
    """Why the data set leaves an annotation out; scores still count it as an object."""
    x, y, width, height = one.box
    effect = "scored as missed" if scored else "left out"
    if one.ignored:
        return "annotations marked to be ignored"
    if one.area <= 0 or width < 1 or height < 1:
        return f"boxes without area, {effect}"
    inside_x = min(x + width, picture.width) - max(x, 0)
    inside_y = min(y + height, picture.height) - max(y, 0)
    if inside_x <= 0 or inside_y <= 0:
        return f"boxes outside their image, {effect}"
    return None


def _used(
    pictures: Mapping[Any, Picture],
    annotated: set[Any],
    kept: set[Any],
    reading: Reading,
    skips: Counter[str],
) -> Iterator[Listed]:
    """The images that the data set keeps."""
    for key, one in pictures.items():
        empty = key not in annotated or (reading.without_crowds and key not in kept)
        if empty:
            drop = reading.without_empty
            skips[f"images without annotations{', left out' if drop else ', kept'}"] += 1
            if drop:
                continue
        if min(one.width, one.height) < reading.smallest:
            skips[f"images below {reading.smallest} pixels, left out"] += 1
            continue
        path = str(reading.images / one.file_name)
        yield Listed(path, f" (image {key})", (int(one.width), int(one.height)))


def _lacking(found: Any, keys: Sequence[str]) -> str:
    if not isinstance(found, dict):
        return f"is {short(found)}; expected an object with {', '.join(keys)}"
    absent = ", ".join(key for key in keys if key not in found)
    return f"lacks {absent}; expected {', '.join(keys)}"


def _some(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more

"""Checks of objects that a data set lists itself, unlike CocoDataset."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree


def check_instances(
    entries: Sequence[Mapping[str, Any]], classes: Sequence[str], named: bool
) -> tuple[list[str], Counter[str]]:
    """Check the objects of the images that a data set keeps.

    Args:
        entries: what `load_data_list` gives, an image each.
        classes: those of the data set.
        named: whether the configuration names them; objects of others are then left out on purpose.

    Returns:
        Errors, one line each, naming the file; and what is left out, and how often.
    """
    errors: list[str] = []
    skips = Counter[str]()
    for entry in entries:
        file = entry.get("xml_path") or entry["img_path"]
        for index, one in enumerate(entry.get("instances", ())):
            skips["objects marked to be ignored"] += bool(one.get("ignore_flag"))
            errors.extend(
                f"{file}: object {index} {wrong}" for wrong in _wrong(one, entry, len(classes))
            )
        for name, count in _other_classes(entry, classes).items():
            if named:
                skips["objects of none of the classes"] += count
            else:
                errors.append(
                    f"{file}: {count} of its objects are {name!r}, none of the {len(classes)} "
                    "classes; set metainfo.classes of the data set"
                )
    return errors, +skips


def _wrong(one: Mapping[str, Any], entry: Mapping[str, Any], classes: int) -> Iterator[str]:
    if one.get("ignore_flag"):  # such as what XMLDataset takes for too small
        return
    box, label = one.get("bbox"), one.get("bbox_label")
    if box is not None:
        left, top, right, bottom = box
        if not all(map(math.isfinite, box)) or right <= left or bottom <= top:
            yield f"has the box {list(box)}, without area; mend the box or take the object out"
        elif right <= 0 or bottom <= 0 or _beyond(left, top, entry):
            yield (
                f"has the box {list(box)}, outside its image of {entry.get('width')}x"
                f"{entry.get('height')} pixels; mend the box or take the object out"
            )
    if label is not None and classes and not 0 <= label < classes:
        yield f"has the label {label}; expected 0 to {classes - 1}"


def _beyond(left: float, top: float, entry: Mapping[str, Any]) -> bool:
    return left >= (entry.get("width") or math.inf) or top >= (entry.get("height") or math.inf)


def _other_classes(entry: Mapping[str, Any], classes: Sequence[str]) -> Counter[str]:
    """Class names in a Pascal VOC file that XMLDataset drops silently."""
    if "xml_path" not in entry:
        return Counter()
    named = ElementTree.parse(entry["xml_path"]).iterfind("object/name")
    return Counter(one.text or "" for one in named if one.text not in classes)

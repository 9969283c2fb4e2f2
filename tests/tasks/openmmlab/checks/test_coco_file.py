from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from spikebench_tasks.openmmlab.checks.coco_file import Annotated, Picture, read_coco, run_lengths

OBJECT = {"id": 1, "image_id": 2, "category_id": 3, "bbox": [1, 2, 3.5, 4], "area": 14}


@given(arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_runs_are_those_of_the_mask(mask: np.ndarray):
    text = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    runs = run_lengths(text)
    values = np.arange(len(runs)) % 2 == 1
    np.testing.assert_array_equal(np.repeat(values, runs), mask.T.ravel())


def test_runs_of_large_masks():
    mask = np.zeros((3000, 4000), dtype=np.uint8, order="F")
    mask[100:2900, 50:3900] = 1
    text = coco_mask.encode(mask)["counts"].decode()
    runs = run_lengths(text)
    assert runs.sum() == mask.size
    assert runs[1::2].sum() == mask.sum()
    assert runs.tolist() == run_lengths(runs.tolist()).tolist()


@given(st.text(max_size=12) | st.lists(st.integers() | st.text(max_size=2), max_size=5))
def test_any_other_text_or_list_is_refused_or_read(counts: Any):
    try:
        runs = run_lengths(counts)
    except (ValueError, OverflowError):
        return
    assert (runs >= 0).all()


@pytest.mark.parametrize("counts", ["", "o", "\u00e9", "\u20ac", "zzzzzzzzz0", "O", [-1, 3], ["a"]])
def test_what_is_no_run_length_is_refused(counts: Any):
    with pytest.raises(ValueError, match="."):
        run_lengths(counts)


def parsed(tmp_path: Path, node: Any, masks: bool = True) -> Any:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(node))
    return read_coco(path, masks)


def test_images_and_annotations_are_reduced(tmp_path: Path):
    picture = {"id": 7, "file_name": "a.jpg", "width": 4, "height": 3, "url": "far away"}
    polygon = {**OBJECT, "segmentation": [[0, 0, 4, 0, 4, 4]], "iscrowd": 1}
    content = parsed(tmp_path, {"images": [picture], "annotations": [polygon], "info": {"x": 1}})
    assert content["images"] == [Picture(7, "a.jpg", 4, 3)]
    assert content["info"] == {"x": 1}
    (one,) = content["annotations"]
    assert isinstance(one, Annotated)
    assert (one.id, one.image, one.category) == (1, 2, 3)
    assert (one.box, one.area, one.crowd, one.ignored) == ((1, 2, 3.5, 4), 14, True, False)
    assert (one.mask, one.mask_size, one.problem) == ("polygons", None, None)


@pytest.mark.parametrize(
    ("segmentation", "kind", "size"),
    [
        ([[0, 0, 4, 0, 4, 4], [1]], "polygons", None),
        ([[0, 0, 4, 0], [1, 2, 3, 4, 5, 6, 7]], "points", None),
        ({"size": [2, 3], "counts": [1, 2, 3]}, "runs", (3, 2)),
        ({"size": [2, 3], "counts": "123"}, "runs", (3, 2)),
        ({"size": [2, 3], "counts": "6"}, "blank", (3, 2)),
        ({"size": [2, 3], "counts": [6]}, "blank", (3, 2)),
        ([], "none", None),
        (None, "none", None),
    ],
)
def test_kinds_of_masks(tmp_path: Path, segmentation: Any, kind: str, size: Any):
    one = parsed(tmp_path, {**OBJECT, "segmentation": segmentation})
    assert (one.mask, one.mask_size, one.problem) == (kind, size, None)
    assert parsed(tmp_path, {**OBJECT, "segmentation": segmentation}, masks=False).mask == ""


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"bbox": [1, 2, 3]}, "has bbox [1, 2, 3]; expected [x, y, width, height]"),
        ({"bbox": "1 2 3 4"}, "has bbox '1 2 3 4'; expected [x, y, width, height]"),
        ({"bbox": [1, 2, float("nan"), 4]}, "has bbox [1, 2, nan, 4]; expected"),
        ({"bbox": [1, 2, 10**400, 4]}, "has bbox [1, 2, 1000"),
        ({"area": None}, "has area None; expected a number of pixels"),
        ({"image_id": [1]}, "has image_id [1]; expected a number"),
        ({"segmentation": "here"}, "has a mask that is neither polygons nor run lengths"),
        ({"segmentation": [["a"]]}, "has a mask that is neither polygons nor run lengths"),
        ({"segmentation": {"size": [2, 3]}}, "has a mask that is neither polygons nor run"),
        (
            {"segmentation": {"size": [2, 3], "counts": [1, 2]}},
            "has a mask in run lengths of 3 pixels; expected 3x2",
        ),
        (
            {"segmentation": {"size": [2, 3], "counts": "o"}},
            "has a mask in run lengths that cannot be read: ",
        ),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, change: dict, problem: str):
    assert parsed(tmp_path, {**OBJECT, **change}).problem.startswith(problem)


def test_nesting_without_end_is_no_crash(tmp_path: Path):
    path = tmp_path / "x.json"
    path.write_text("[" * 200_000)
    with pytest.raises(ValueError, match="nested"):
        read_coco(path, masks=True)

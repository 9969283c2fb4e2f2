from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmdet.datasets import CityscapesDataset, CocoDataset

from spikebench_tasks.openmmlab.checks.coco import Coco, Reading, check_coco
from tests.tasks.openmmlab import trees

CLASSES = ("ant", "bee", "cat")
MASKS = "LoadAnnotations with with_mask=True"

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A sound file: three images with two objects each, of the categories 1, 3 and 5."""
    path = tmp_path / "x.json"
    rng = np.random.default_rng(0)
    trees.coco_split(path, tmp_path / "images", rng, CLASSES, used=(0, 1, 2))
    return path


@pytest.fixture
def change(path: Path) -> Callable[..., None]:
    """Change an entry of the file: `change("images", 0, width=3)`; None takes a key away."""

    def of(kind: str, index: int, **values: Any) -> None:
        content = trees.read(path)
        entry = {**content[kind][index], **values}
        content[kind][index] = {k: v for k, v in entry.items() if v is not None}
        trees.write(path, content)

    return of


def checked(path: Path, **options: Any) -> Coco:
    given = {"classes": CLASSES, "images": path.parent / "images", "masks": MASKS, **options}
    return check_coco(path, Reading(**given))


def objects_of_mmdetection(path: Path, classes: Sequence[str]) -> int:
    prefix, metainfo = {"img": str(path.parent / "images")}, {"classes": classes}
    dataset = CocoDataset(ann_file=str(path), data_prefix=prefix, metainfo=metainfo)
    return sum(len(dataset[index]["instances"]) for index in range(len(dataset)))


def test_a_sound_file_passes(path: Path):
    found = checked(path)
    assert found.errors == []
    assert found.skips == {}
    assert found.annotations == 6
    assert [(one.name, one.size) for one in found.images] == [
        (" (image 1)", (70, 48)),
        (" (image 2)", (70, 56)),
        (" (image 3)", (70, 64)),
    ]
    assert found.images[0].path == str(path.parent / "images" / "000000000001.jpg")


class TestFiles:
    @pytest.mark.parametrize("text", ["", "{", '{"images": [', "[1, 2", "\xff", '{"a": NaN,}'])
    def test_that_are_no_json(self, path: Path, text: str):
        path.write_text(text, encoding="latin-1")
        (line,) = checked(path).errors
        assert line.startswith(str(path))
        assert "get it again" in line  # the remedy

    @pytest.mark.parametrize("content", [[], 3, None, {}, {"images": [], "annotations": []}])
    def test_of_another_format(self, path: Path, content: Any):
        trees.write(path, content)
        (line,) = checked(path).errors
        assert line.startswith(f"{path} is not in COCO's format")

    @settings(
        deadline=None,
        max_examples=300,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(data=st.data())
    def test_garbage_is_an_error_or_read(self, path: Path, data):
        whole = path.read_bytes()
        try:
            content = bytearray(whole)
            for _ in range(data.draw(st.integers(0, 3))):
                content[data.draw(st.integers(0, len(content) - 1))] = data.draw(
                    st.sampled_from(b'0123456789[]{},:"x.-eE')
                )
            cut = data.draw(st.none() | st.integers(0, len(content)))
            path.write_bytes(content if cut is None else content[:cut])
            for line in checked(path).errors:
                assert line.startswith(str(path))
                assert "\n" not in line
        finally:
            path.write_bytes(whole)

    @settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_any_value_is_an_error_or_read(self, path: Path, data):
        content = trees.read(path)
        value = data.draw(
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(st.sampled_from(["id", "name", "size"]), inner, max_size=3)
                ),
                max_leaves=4,
            )
        )
        kind = data.draw(st.sampled_from(["images", "annotations", "categories"]))
        if data.draw(st.booleans()):
            content[kind][0] = value
        else:
            content[kind][0][data.draw(st.sampled_from(sorted(content[kind][0])))] = value
        changed = path.with_name("changed.json")
        changed.write_text(json.dumps(content))
        assert all("\n" not in line for line in checked(changed).errors)


class TestImages:
    def test_what_lacks_a_key(self, path: Path, change):
        change("images", 1, width=None)
        assert checked(path).errors[0] == (
            f"{path}: images[1] lacks width; expected id, file_name, width, height"
        )

    def test_a_size_that_is_none(self, path: Path, change):
        change("images", 1, width=0)
        assert checked(path).errors[0] == (
            f"{path}: image 2 (000000000002.jpg) has width 0 and height 56; expected pixels"
        )

    def test_an_id_that_is_there_twice(self, path: Path, change):
        change("images", 1, id=1)
        assert checked(path).errors[0] == (
            f"{path}: image id 1 stands for both 000000000001.jpg and 000000000002.jpg; give each "
            "image an id of its own"
        )


class TestAnnotations:
    @pytest.mark.parametrize(
        ("values", "problem"),
        [
            ({"id": 2}, "2 is there twice; give each annotation an id of its own"),
            ({"image_id": 99}, "1 is of image 99, which the file does not list"),
            ({"category_id": 2}, "1 is of category 2, which the file does not list"),
            ({"bbox": [1, 2]}, "1 has bbox [1, 2]; expected [x, y, width, height]"),
            ({"bbox": ["a", 1, 2, 3]}, "1 has bbox ['a', 1, 2, 3]; expected [x, y, width, he"),
            (
                {"segmentation": {"size": [48, 70], "counts": [5]}},
                "1 has a mask in run lengths of 5 pixels; expected 70x48",
            ),
            (
                {"segmentation": {"size": [2, 3], "counts": [1, 5]}},
                "1 has a mask of 3x2 pixels on 000000000001.jpg, of 70x48",
            ),
        ],
    )
    def test_one_that_is_wrong(self, path: Path, change, values: dict, problem: str):
        change("annotations", 0, **values)
        (line,) = checked(path).errors
        assert line.startswith(f"{path}: annotation {problem}")

    def test_one_that_lacks_a_key(self, path: Path, change):
        change("annotations", 0, area=None)
        assert checked(path).errors == [
            f"{path}: annotations[0] lacks area; expected id, image_id, category_id, bbox, area"
        ]

    def test_the_id_that_scores_take_for_no_match(self, path: Path, change):
        change("annotations", 0, id=0)
        assert checked(path).errors == []
        (line,) = checked(path, scored=True).errors
        assert line == (
            f"{path}: annotation 0 has the id that stands for no match in COCO's scores; number "
            "annotations from 1"
        )

    @pytest.mark.parametrize(
        ("values", "skipped", "effect"),
        [
            ({"bbox": [5, 5, 0, 9]}, "boxes without area", True),
            ({"bbox": [5, 5, 9, 0.5]}, "boxes without area", True),
            ({"area": 0}, "boxes without area", True),
            ({"bbox": [5, 5, -9, 9]}, "boxes without area", True),
            ({"bbox": [70, 5, 9, 9]}, "boxes outside their image", True),
            ({"bbox": [5, -9, 9, 9]}, "boxes outside their image", True),
            ({"ignore": 1}, "annotations marked to be ignored", False),
            ({"iscrowd": 1}, "crowd annotations, ignored", False),
        ],
    )
    def test_what_has_no_effect_is_counted(self, path, change, values, skipped: str, effect: bool):
        change("annotations", 0, **values)
        for scored in (False, True):
            how = {True: ", scored as missed", False: ", left out"}[scored] if effect else ""
            found = checked(path, scored=scored)
            assert found.errors == []
            assert found.skips == {skipped + how: 1}
            assert found.annotations == 6

    def test_a_box_that_touches_its_image_counts(self, path: Path, change):
        change("annotations", 0, bbox=[69, 47, 9, 9])
        change("annotations", 1, bbox=[-8, -8, 9, 9])
        assert checked(path).skips == {}

    def test_what_mmdetection_drops_is_what_is_counted(self, path: Path, change):
        change("annotations", 0, bbox=[70, 5, 9, 9])
        change("annotations", 1, bbox=[5, 5, 0, 9])
        change("annotations", 2, area=-1)
        change("annotations", 3, ignore=1)
        found = checked(path)
        kept = objects_of_mmdetection(path, CLASSES)
        assert found.annotations - sum(found.skips.values()) == kept == 2


class TestCategories:
    def errors(self, path: Path, *names: str, **options) -> list[str]:
        return checked(path, classes=names, **options).errors

    def test_a_class_without_category_would_shift_all_labels(self, path: Path):
        assert self.errors(path, "ant", "Bee", "cat") == [
            f"{path} has no category for 1 of the 3 classes: 'Bee'; set metainfo.classes of the "
            "data set to 'ant', 'bee', 'cat', in this order"
        ]

    def test_classes_of_another_data_set_are_named_in_short(self, path: Path):
        (line,) = self.errors(path, *trees.COCO_CLASSES[:30], named=False)
        assert "no category for 29 of the 30 classes: 'person', 'bicycle', " in line  # cat is one
        assert "and 24 more; set metainfo.classes" in line

    def test_another_order_gives_objects_the_names_of_others(self, path: Path):
        (line,) = self.errors(path, "bee", "ant", "cat")
        assert line.startswith(
            f"{path} has its categories in the order 'ant', 'bee', 'cat', in which MMDetection "
            "numbers them, but the classes are 'bee', 'ant', 'cat'; "
        )

    def test_a_category_that_no_class_is_loses_its_annotations(self, path: Path):
        content = trees.read(path)
        lost = sum(one["category_id"] == 5 for one in content["annotations"])
        assert lost > 0
        (line,) = self.errors(path, "ant", "bee", named=False)
        assert line.startswith(
            f"{path}: category 'cat' (id 5, {lost} annotations) is none of the 2 classes; "
        )

    def test_where_the_configuration_names_classes_others_are_left_out(self, path: Path):
        found = checked(path, classes=("ant", "bee"))
        assert found.errors == []
        (what,) = found.skips
        assert what == "annotations of categories that are none of the classes"
        kept = objects_of_mmdetection(path, ("ant", "bee"))
        assert found.annotations - found.skips[what] == kept

    def test_a_category_without_annotations_is_no_error(self, path: Path):
        content = trees.read(path)
        content["categories"].append({"id": 9, "name": "unused"})
        trees.write(path, content)
        assert self.errors(path, *CLASSES, named=False) == []

    @pytest.mark.parametrize("values", [{"id": 3}, {"name": "bee"}])
    def test_one_that_is_there_twice(self, path: Path, change, values: dict):
        change("categories", 2, **values)
        assert "has the name or the id of another; give each its own" in checked(path).errors[0]

    @pytest.mark.parametrize("values", [{"id": None}, {"name": None}, {"name": 3}, {"id": [1]}])
    def test_one_that_is_none(self, path: Path, change, values: dict):
        change("categories", 2, **values)
        assert checked(path).errors[0].startswith(f"{path}: categories[2] ")


class TestMasks:
    def polygons(self, path: Path) -> None:
        content = trees.read(path)
        for one in content["annotations"]:
            one["segmentation"] = [[4, 6, 30, 6, 30, 40]]
        trees.write(path, content)

    def test_run_lengths_would_vanish_without_poly2mask(self, path: Path):
        assert checked(path, polygons_only=True).errors == [
            f"{path}: 6 masks are run lengths (the first is of annotation 1), which "
            "LoadAnnotations with poly2mask=False leaves out without a word; set poly2mask=True"
        ]
        self.polygons(path)
        assert checked(path, polygons_only=True).errors == []

    def test_crowds_are_in_run_lengths_and_ignored_anyway(self, path: Path, change):
        runs = trees.read(path)["annotations"][0]["segmentation"]
        self.polygons(path)
        change("annotations", 0, segmentation=runs, iscrowd=1)
        assert checked(path, polygons_only=True).errors == []

    def test_annotations_without_a_mask(self, path: Path, change):
        change("annotations", 2, segmentation=None)
        change("annotations", 3, segmentation=[])
        assert checked(path).errors == [
            f"{path}: 2 annotations have no mask (the first is annotation 3), which {MASKS} needs; "
            "use a file that has them, or a detector of boxes only"
        ]
        assert checked(path, masks=None).errors == []

    def test_masks_of_two_points_or_no_pixel_are_counted(self, path: Path, change):
        change("annotations", 0, segmentation=[[1, 2, 3, 4]])
        change("annotations", 1, segmentation={"size": [48, 70], "counts": [48 * 70]})
        assert checked(path).skips == {
            "masks of fewer than 3 points, ignored": 1,
            "masks without a pixel": 1,
        }


class TestImagesThatAreUsed:
    """What is kept is compared with what MMDetection keeps."""

    @pytest.mark.parametrize("kind", [CocoDataset, CityscapesDataset])
    @pytest.mark.parametrize("filters", [{}, {"filter_empty_gt": True}, {"min_size": 50}])
    @pytest.mark.parametrize("test_mode", [False, True])
    def test_they_are_those_of_mmdetection(self, path, change, kind, filters, test_mode: bool):
        content = trees.read(path)
        content["annotations"] = [one for one in content["annotations"] if one["image_id"] != 2]
        trees.write(path, content)
        for index in (0, 1):
            change("annotations", index, iscrowd=1)
        dataset = kind(
            ann_file=str(path),
            data_prefix={"img": str(path.parent / "images")},
            metainfo={"classes": CLASSES},
            filter_cfg=filters,
            test_mode=test_mode,
        )
        found = checked(
            path,
            without_empty=not test_mode and filters.get("filter_empty_gt", False),
            without_crowds=not test_mode and kind is CityscapesDataset,
            smallest=0 if test_mode else filters.get("min_size", 0),
        )
        expected = [dataset.get_data_info(index)["img_path"] for index in range(len(dataset))]
        assert [one.path for one in found.images] == expected
        left_out = sum(n for what, n in found.skips.items() if "images" in what and "left" in what)
        assert left_out == 3 - len(expected)

    def test_empty_ones_that_stay_are_counted_too(self, path: Path):
        content = trees.read(path)
        content["annotations"] = content["annotations"][:2]
        trees.write(path, content)
        assert checked(path).skips == {"images without annotations, kept": 2}
        assert checked(path, without_empty=True).skips == {
            "images without annotations, left out": 2
        }

"""Files of data sets with something wrong in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spikebench_tasks.datasets import DatasetError
from tests.tasks.openmmlab import trees
from tests.tasks.openmmlab.checks.data_configs import (
    FIRST,
    KINDS,
    check_data,
    coco,
    found,
    require_sound_data,
    voc2012,
)

pytestmark = pytest.mark.filterwarnings("ignore")


class TestBadFiles:
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_missing_image(self, root: Path, kind: str):
        path = root / FIRST[kind][0]
        path.unlink()
        errors = found(KINDS[kind]())
        if FIRST[kind][1] is None or kind == "voc2012":  # others list what is there
            (line,) = errors["train"]
            assert line.startswith(str(path))
            assert line.endswith(" is missing")
        assert errors["test"] == []

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_corrupt_image(self, root: Path, kind: str):
        path = root / FIRST[kind][0]
        path.write_bytes(path.read_bytes()[:-200])
        (line,) = found(KINDS[kind]())["train"]
        assert line.startswith(str(path))
        assert " cannot be decoded (" in line
        with pytest.raises(DatasetError) as caught:
            require_sound_data(KINDS[kind]())
        assert str(caught.value) == f"train: {line}"

    @pytest.mark.parametrize("kind", ["ade20k", "voc2012", "cityscapes"])
    def test_a_missing_label_map(self, root: Path, kind: str):
        image, labels = FIRST[kind]
        (root / str(labels)).unlink()
        (line,) = found(KINDS[kind]())["train"]
        assert line == f"{root / str(labels)} is missing, the label map of {root / image}"

    @pytest.mark.parametrize(
        ("kind", "highest"), [("ade20k", 150), ("voc2012", 20), ("cityscapes", 18)]
    )
    def test_a_label_out_of_range(self, root: Path, kind: str, highest: int):
        path = root / str(FIRST[kind][1])
        labels = np.array(Image.open(path))
        for value, wrong in ((highest, False), (255, False), (highest + 1, True), (254, True)):
            labels[0, 0] = value
            Image.fromarray(labels).save(path)
            errors = found(KINDS[kind]())["train"]
            assert len(errors) == wrong
            if wrong:
                assert errors[0].startswith(
                    f"{path} holds label {value}; expected 0 to {highest} ("
                )

    def test_labels_of_chosen_classes_are_those_before_they_were_chosen(self, root: Path):
        config = voc2012()
        config["model"] = {"decode_head": {"num_classes": 2}}
        for split in ("train", "test"):
            metainfo = {"classes": ("background", "aeroplane")}
            config[f"{split}_dataloader"]["dataset"]["metainfo"] = metainfo
        assert found(config) == {"train": [], "test": []}
        assert check_data(config)[0].classes == 2

    def test_a_list_with_an_image_twice(self, root: Path):
        path = root / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation" / "val.txt"
        path.write_text("2007_val0\n2007_val1\n2007_val0\n")
        (line,) = found(voc2012())["test"]
        assert line.endswith("JPEGImages/2007_val0.jpg 2 times")

    def test_a_list_without_images(self, root: Path):
        path = root / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation" / "val.txt"
        path.write_text("")
        assert found(voc2012())["test"] == [
            "test_dataloader.dataset has no image left; its list is empty"
        ]

    def test_a_split_of_which_nothing_is_left(self, root: Path):
        path = root / "coco" / "annotations" / "instances_train2017.json"
        trees.write(path, {**trees.read(path), "annotations": []})
        assert found(coco())["train"] == [
            "train_dataloader.dataset has no image left; images without annotations, left out: 3"
        ]

    def test_annotations_that_are_no_json(self, root: Path):
        path = root / "coco" / "annotations" / "instances_train2017.json"
        path.write_text(path.read_text()[:-5])
        (line,) = found(coco())["train"]
        assert line.startswith(str(path))

    def test_all_errors_are_found_and_the_first_stops_a_run(self, root: Path):
        for index in (1, 2):
            (root / "coco" / "train2017" / f"{index:012d}.jpg").write_bytes(b"")
        (root / "coco" / "val2017" / "000000000003.jpg").unlink()
        errors = found(coco())
        assert [len(lines) for lines in errors.values()] == [2, 1]
        with pytest.raises(DatasetError) as caught:
            require_sound_data(coco())
        assert str(caught.value) == (
            f"train: {root}/coco/train2017/000000000001.jpg (image 1) is empty (0 bytes); get it "
            "again (and 2 more; `spikebench check-data CONFIG` lists them)"
        )

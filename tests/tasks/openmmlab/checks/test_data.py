"""Data of whole configurations: what is wrong with each, before anything is built of them."""

from __future__ import annotations

import copy
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image

from spikebench.datacheck import SplitCheck
from spikebench.files import data_root
from spikebench.task import ConfigError, MissingDataError
from spikebench_tasks.config import load_config
from spikebench_tasks.datasets import DatasetError
from spikebench_tasks.openmmlab.checks import data as checks
from spikebench_tasks.openmmlab.checks import dataset as check_dataset
from spikebench_tasks.openmmlab.data import located
from tests.tasks.openmmlab import trees

CONFIGS = Path(__file__).parents[4] / "configs"


def check_data(config: Mapping[str, Any], cached: bool = False) -> list[SplitCheck]:
    return checks.check_data(config, data_root(), cached)


def require_sound_data(config: Mapping[str, Any]) -> None:
    checks.require_sound_data(config, data_root())


pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "spikebench" / "data"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with three images a split of each data set."""
    folder = tmp_path / "sets"
    for make in (trees.coco, trees.ade20k, trees.voc2012, trees.cityscapes):
        make(folder, np.random.default_rng(0))
    monkeypatch.setenv("SPIKEBENCH_DATA", str(folder))
    return folder


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


class TestSoundData:
    @pytest.mark.parametrize("kind", KINDS)
    def test_of_stock_data_sets_passes(self, root: Path, kind: str):
        config = KINDS[kind]()
        before = copy.deepcopy(config)
        train, test = check_data(config)
        assert config == before
        classes = {"coco": 80, "ade20k": 150, "voc2012": 21, "cityscapes": 19}[kind]
        objects = 6 if kind == "coco" else 3
        assert train == SplitCheck("train", kind, 3, objects, classes)
        assert test == SplitCheck("test", kind, 3, objects, classes)
        require_sound_data(config)
        require_sound_data(Config(config))

    def test_a_validation_split_of_its_own_is_looked_at(self, root: Path):
        config = coco()
        config["val_dataloader"]["dataset"]["ann_file"] = "annotations/instances_train2017.json"
        config["val_dataloader"]["dataset"]["data_prefix"] = {"img": "train2017"}
        assert [one.split for one in check_data(config)] == ["train", "val", "test"]
        config["val_dataloader"] = None
        assert [one.split for one in check_data(config)] == ["train", "test"]
        del config["train_dataloader"], config["val_dataloader"]
        assert [one.split for one in check_data(config)] == ["test"]

    def test_of_wrapped_data_sets_each_is_looked_at(self, root: Path):
        config = voc2012()
        train = config["train_dataloader"]["dataset"]
        both = {"type": "ConcatDataset", "datasets": [train, {**train, "ann_file": "none.txt"}]}
        config["train_dataloader"]["dataset"] = {"type": "RepeatDataset", "dataset": both}
        first, second, _ = check_data(config)
        assert (first.split, first.images, first.errors) == ("train 1", 3, [])
        assert second.split == "train 2"
        assert f"{root}/VOCdevkit/VOC2012/none.txt is not there" in second.errors[0]

    def test_only_the_images_of_a_limited_run_are_looked_at(self, root: Path):
        (root / "coco" / "train2017" / "000000000003.jpg").unlink()
        config = coco()
        config["train_dataloader"]["dataset"]["indices"] = 2
        train, _ = check_data(config)
        assert (train.images, train.errors) == (2, [])
        config["train_dataloader"]["dataset"]["indices"] = -1
        assert len(check_data(config)[0].errors) == 1
        config["train_dataloader"]["dataset"]["indices"] = [0, 2]
        assert len(check_data(config)[0].errors) == 1

    def test_skips_are_counted_and_logged(self, root: Path, caplog):
        path = root / "coco" / "annotations" / "instances_train2017.json"
        content = trees.read(path)
        content["annotations"][0]["bbox"] = [5, 5, 0, 0]
        content["annotations"][2]["iscrowd"] = 1
        content["annotations"] = content["annotations"][:4]
        trees.write(path, content)
        train, test = check_data(coco())
        assert train.skips == {
            "boxes without area, left out": 1,
            "crowd annotations, ignored": 1,
            "images without annotations, left out": 1,
        }
        assert (train.images, train.annotations, test.skips) == (2, 4, {})
        for _ in range(2):  # the second time it is remembered
            caplog.clear()
            with caplog.at_level(logging.INFO, "spikebench"):
                require_sound_data(coco())
            assert (
                "train data: boxes without area, left out: 1; crowd annotations, ignored: 1; "
                "images without annotations, left out: 1"
            ) in caplog.messages


OURS = sorted(
    path
    for path in CONFIGS.glob("*/*.py")
    if path.parent.name in ("detection", "segmentation") and path.stem.endswith(tuple(KINDS))
)


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_the_data_of_our_configurations_fit_them(root: Path, path: Path):
    checks = check_data(load_config(path, []))
    assert [(one.split, one.images, one.errors) for one in checks] == [
        ("train", 3, []),
        ("test", 3, []),
    ]


@pytest.mark.usefixtures("data_root")
@pytest.mark.parametrize(
    ("name", "objects", "classes"),
    [
        ("detection/mask_rcnn_digit_scenes", [8978, 456], 10),
        ("segmentation/semantic_fpn_digit_scenes", [2000, 100], 11),
    ],
)
def test_digit_scenes_pass(name: str, objects: list[int], classes: int):
    checks = check_data(load_config(CONFIGS / f"{name}.py", []))
    assert checks == [
        SplitCheck("train", "digit_scenes", 2000, objects[0], classes),
        SplitCheck("test", "digit_scenes", 100, objects[1], classes),
    ]


class TestMissingData:
    @pytest.mark.parametrize("kind", KINDS)
    def test_are_said_with_where_they_come_from(self, tmp_path: Path, monkeypatch, kind: str):
        monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path / "none"))
        train, test = check_data(KINDS[kind]())
        assert train.missing
        assert test.missing
        with pytest.raises(MissingDataError) as caught:
            require_sound_data(KINDS[kind]())
        assert str(caught.value) == train.errors[0]
        assert f" is missing: {tmp_path}/none/" in train.errors[0]

    def test_the_annotations_that_score(self, root: Path):
        config = coco()
        config["test_evaluator"]["ann_file"] = "data/coco/annotations/other.json"
        _, test = check_data(config)
        assert test.missing
        assert f"{root}/coco/annotations/other.json is not there" in test.errors[0]

    def test_training_data_that_are_there_do_not_hide_it(self, root: Path):
        (root / "coco" / "annotations" / "instances_val2017.json").unlink()
        with pytest.raises(MissingDataError, match=r"instances_val2017\.json"):
            require_sound_data(coco())


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


class TestBadConfigurations:
    def test_run_lengths_without_poly2mask(self, root: Path):
        config = coco()
        config["train_dataloader"]["dataset"]["pipeline"][1]["poly2mask"] = False
        errors = found(config)
        assert len(errors["train"]) == 1
        assert "which LoadAnnotations with poly2mask=False leaves out" in errors["train"][0]
        assert errors["test"] == []
        config["train_dataloader"]["dataset"]["pipeline"][1]["with_mask"] = False
        assert found(config)["train"] == []

    @pytest.mark.parametrize(
        "evaluator",
        [{"metric": "segm"}, {"metric": ["bbox", "segm"]}, {"type": "CocoAP"}],
    )
    def test_masks_that_are_scored_but_not_there(self, root: Path, evaluator: dict):
        import spikebench_tasks.detection.registered  # noqa: F401

        path = root / "coco" / "annotations" / "instances_val2017.json"
        content = trees.read(path)
        del content["annotations"][0]["segmentation"]
        trees.write(path, content)
        config = coco()
        config["test_dataloader"]["dataset"]["pipeline"].pop()
        config["val_dataloader"] = None
        config["test_evaluator"] = {"type": "CocoMetric", **evaluator}
        (line,) = found(config)["test"]
        assert "1 annotations have no mask (the first is annotation 1), which scoring masks" in line
        config["test_evaluator"] = {"type": "CocoMetric", **evaluator, "metric": "bbox"}
        assert found(config)["test"] == []

    def test_scores_of_another_file_than_the_images(self, root: Path):
        config = coco()
        config["test_evaluator"]["ann_file"] = "data/coco/annotations/instances_train2017.json"
        (line,) = found(config)["test"]
        folder = root / "coco" / "annotations"
        assert line == (
            f"test_evaluator.ann_file is {folder}/instances_train2017.json, but "
            f"test_dataloader.dataset lists {folder}/instances_val2017.json; make them the same"
        )

    @pytest.mark.parametrize(
        ("kind", "place"),
        [
            ("coco", "model.roi_head.bbox_head.num_classes"),
            ("coco", "model.roi_head.mask_head.num_classes"),
            ("ade20k", "model.decode_head.num_classes"),
            ("voc2012", "model.auxiliary_head.0.num_classes"),
        ],
    )
    def test_a_head_of_another_number_of_classes(self, root: Path, kind: str, place: str):
        config = KINDS[kind]()
        node: Any = config
        *parents, last = place.split(".")
        for name in parents:
            node = node[int(name) if name.isdigit() else name]
        node[last] = 7
        classes = {"coco": 80, "ade20k": 150, "voc2012": 21}[kind]
        for split, lines in found(config).items():
            assert lines == [
                f"{split}_dataloader.dataset has {classes} classes, but {place} is 7; make them "
                "equal"
            ]

    def test_classes_of_another_data_set(self, root: Path):
        path = root / "coco" / "annotations" / "instances_train2017.json"
        rng = np.random.default_rng(0)
        trees.coco_split(path, root / "coco" / "train2017", rng, ("ant", "bee"), used=(0, 1))
        errors = found(coco())
        assert errors["train"][0].startswith(f"{path} has no category for 80 ")
        assert errors["test"] == []

    def test_a_data_set_without_classes(self, root: Path):
        config = ade20k()
        config["train_dataloader"]["dataset"].update(type="BaseSegDataset")
        assert found(config)["train"][0] == (
            "train_dataloader.dataset names no classes; set its metainfo.classes"
        )

    def test_label_maps_that_are_read_otherwise_than_listed(self, root: Path):
        config = ade20k()
        steps = [{"type": "LoadAnnotations", "reduce_zero_label": False}]
        config["train_dataloader"]["dataset"]["pipeline"] = steps
        assert found(config)["train"] == [
            "LoadAnnotations of train_dataloader.dataset has reduce_zero_label=False, but the data "
            "set has True; make them equal"
        ]

    def test_no_folder_of_label_maps(self, root: Path):
        config = ade20k()
        del config["train_dataloader"]["dataset"]["data_prefix"]["seg_map_path"]
        assert found(config)["train"] == [
            "train_dataloader.dataset has no label maps; set its data_prefix.seg_map_path"
        ]

    def test_no_folder_of_images(self, root: Path):
        config = coco()
        config["train_dataloader"]["dataset"]["data_prefix"] = {"images": "train2017"}
        assert found(config)["train"] == [
            "train_dataloader.dataset.data_prefix names no img, the folder of images"
        ]

    def test_a_type_that_nobody_registered(self, root: Path):
        config = coco()
        config["train_dataloader"]["dataset"]["type"] = "CocoDatset"
        (line,) = found(config)["train"]
        assert line.startswith("train_dataloader.dataset.type is 'CocoDatset'")

    @pytest.mark.parametrize("evaluator", [{"type": "CocoMetrik"}, {"metric": "bbox"}])
    def test_an_evaluator_that_nobody_registered(self, root: Path, evaluator: dict[str, Any]):
        config = coco()
        config["test_evaluator"] = evaluator
        (line,) = found(config)["test"]
        kind = repr(evaluator.get("type"))
        assert line.startswith(f"test_evaluator.type is {kind}")

    def test_a_data_set_without_a_type(self, root: Path):
        config = coco()
        del config["train_dataloader"]["dataset"]["type"]
        (line,) = found(config)["train"]
        assert line.startswith("train_dataloader.dataset.type is None")

    def test_a_loader_without_a_data_set(self, root: Path):
        config = coco()
        config["train_dataloader"] = {"batch_size": 2}
        with pytest.raises(ConfigError, match=r"train_dataloader.*batch_size"):
            check_data(config)

    def test_an_import_that_fails(self, root: Path):
        imports = {
            "imports": ["spikebench_tasks.detection.registred"],
            "allow_failed_imports": False,
        }
        with pytest.raises(ConfigError, match="registred"):
            check_data({**coco(), "custom_imports": imports})

    def test_an_argument_that_the_data_set_does_not_take(self, root: Path):
        config = coco()
        config["train_dataloader"]["dataset"]["colour"] = "red"
        (line,) = found(config)["train"]
        assert line.startswith("train_dataloader.dataset ")
        assert "colour" in line


class TestMemory:
    @pytest.fixture
    def looks(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The splits whose images were looked at."""
        looked: list[str] = []
        look = check_dataset.check_images

        def count(listed, labels, title, turn):
            looked.append(title)
            return look(listed, labels, title, turn)

        monkeypatch.setattr(check_dataset, "check_images", count)
        return looked

    def test_what_passed_is_not_read_again(self, root: Path, looks: list[str]):
        checked = check_data(coco())
        assert looks == ["train data", "test data"]
        assert check_data(coco(), cached=True) == checked
        require_sound_data(Config(coco()))
        assert looks == ["train data", "test data"]
        assert check_data(coco()) == checked
        assert len(looks) == 4

    @pytest.mark.parametrize(
        "changed",
        [
            lambda root: (root / "coco/train2017/000000000001.jpg").unlink(),
            lambda root: os.utime(root / "coco/train2017/000000000001.jpg", (1, 1)),
            lambda root: os.utime(root / "coco/annotations/instances_train2017.json", (1, 1)),
        ],
    )
    def test_a_change_of_a_file_is_noticed(self, root: Path, looks, changed: Callable):
        check_data(coco())
        changed(root)
        looks.clear()
        check_data(coco(), cached=True)
        assert looks == ["train data"]

    def test_a_change_of_a_label_map_is_noticed(self, root: Path, looks):
        check_data(cityscapes())
        os.utime(root / str(FIRST["cityscapes"][1]), (1, 1))
        looks.clear()
        check_data(cityscapes(), cached=True)
        assert looks == ["train data"]

    def test_so_is_a_change_of_what_matters_in_the_configuration(self, root: Path, looks):
        check_data(coco())
        looks.clear()
        config = coco()
        config["train_dataloader"]["dataset"]["pipeline"].append({"type": "RandomFlip"})
        config["train_dataloader"]["batch_size"] = 16
        check_data(config, cached=True)
        assert looks == []
        config["train_dataloader"]["dataset"]["pipeline"][1]["poly2mask"] = False
        assert check_data(config, cached=True)[0].errors
        config = coco()
        config["model"]["roi_head"]["bbox_head"]["num_classes"] = 3
        assert check_data(config, cached=True)[1].errors

    def test_errors_are_not_remembered(self, root: Path, cache: Path, looks):
        (root / "coco" / "train2017" / "000000000001.jpg").write_bytes(b"")
        for _ in range(2):
            assert check_data(coco(), cached=True)[0].errors
        assert looks == ["train data", "test data", "train data"]
        assert len(list(cache.iterdir())) == 1

    @pytest.mark.parametrize("text", ["", "{}", "[]", '{"files": 1, "check": {"new": 1}}'])
    def test_a_memory_that_is_none_is_made_anew(self, root: Path, cache: Path, looks, text: str):
        check_data(coco())
        for path in cache.iterdir():
            path.write_text(text)
        looks.clear()
        assert check_data(coco(), cached=True)[0].images == 3
        assert looks == ["train data", "test data"]
        assert all(json.loads(path.read_text())["check"] for path in cache.iterdir())

    def test_a_cache_that_cannot_be_written_is_said(self, root: Path, cache: Path, caplog):
        cache.parent.mkdir(parents=True)
        cache.write_text("a file")
        with caplog.at_level(logging.WARNING, "spikebench"):
            require_sound_data(coco())
        assert "cannot be written (" in caplog.messages[0]


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with the real samples, under the names of the whole data sets."""
    folder = Path(__file__).parents[5] / "shared"
    folder = Path(os.environ.get("SPIKEBENCH_SHARED", folder)) / "data"
    if not folder.is_dir():
        pytest.skip(f"no {folder}; SPIKEBENCH_SHARED says where it is")
    root = tmp_path / "samples"
    root.mkdir()
    names = {"coco": "coco53_cc", "ade20k": "ade20k_sample3"}
    for name in ("coco", "ade20k", "bccd", "nuclei200"):
        (root / name).symlink_to(folder / names.get(name, name))
    monkeypatch.setenv("SPIKEBENCH_DATA", str(root))
    return root


SAMPLES = {
    "detection/mask_rcnn_15m_t1_coco": ("coco", [25, 27], [181, 174], 80),
    "detection/faster_rcnn_nano_bccd": ("bccd", [205, 72], [2804, 945], 3),
    "detection/mask_rcnn_nano_nuclei": ("nuclei200", [160, 40], [5257, 1202], 1),
    "segmentation/semantic_fpn_nano_nuclei": ("nuclei200", [160, 40], [160, 40], 2),
    "segmentation/semantic_fpn_15m_t1_ade20k": ("ade20k", [3], [3], 150),
}


@pytest.mark.data
@pytest.mark.parametrize("name", SAMPLES)
class TestSamples:
    def config(self, name: str) -> dict[str, Any]:
        config = load_config(CONFIGS / f"{name}.py", [])
        if "ade20k" in name:  # there are images of the validation split only
            del config["train_dataloader"]
        return config

    def test_they_pass(self, shared: Path, name: str):
        dataset, images, annotations, classes = SAMPLES[name]
        checks = check_data(self.config(name))
        assert [one.errors for one in checks] == [[]] * len(images)
        assert {one.dataset for one in checks} == {dataset}
        assert [one.images for one in checks] == images
        assert [one.annotations for one in checks] == annotations
        assert {one.classes for one in checks} == {classes}

    def test_they_load_through_the_stock_data_sets(self, shared: Path, name: str):
        """Everything that was counted is there after the pipeline, masks in particular."""
        config = located(self.config(name), data_root())
        scope = config["default_scope"]
        with DefaultScope.overwrite_default_scope(scope):
            for check in check_data(config):
                described = config[f"{check.split}_dataloader"]["dataset"]
                kept = [s for s in described["pipeline"] if s["type"].startswith(("Load", "Pack"))]
                dataset = DATASETS.build({**described, "pipeline": []})
                load = Compose([step for step in kept if step["type"].startswith("Load")])
                assert len(dataset) == check.images
                for index in range(0, len(dataset), 9):
                    example = load(dataset[index])
                    if scope == "mmseg":
                        labels = np.unique(example["gt_seg_map"])
                        assert example["gt_seg_map"].shape == example["img"].shape[:2]
                        assert set(labels) <= {*range(check.classes), 255}
                        continue
                    objects = len(example["instances"])
                    assert objects > 0
                    assert len(example["gt_bboxes"]) == objects
                    assert example["gt_bboxes_labels"].max() < check.classes
                    if "gt_masks" in example:
                        assert len(example["gt_masks"]) == objects
                        assert example["gt_masks"].areas.min() > 0
                        crowds = sum(one["ignore_flag"] for one in dataset[index]["instances"])
                        assert example["gt_ignore_flags"].sum() == crowds
                assert ("mask_rcnn" in name) == any(s.get("with_mask") for s in kept)

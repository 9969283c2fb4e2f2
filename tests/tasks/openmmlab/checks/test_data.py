"""Data of whole configurations: sound or missing, before anything is built of them."""

from __future__ import annotations

import copy
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DATASETS, DefaultScope

from spikebench.datacheck import SplitCheck
from spikebench.files import data_root
from spikebench.task import MissingDataError
from spikebench_tasks.config import load_config
from spikebench_tasks.openmmlab.data import located
from tests.tasks.openmmlab import trees
from tests.tasks.openmmlab.checks.data_configs import (
    CONFIGS,
    KINDS,
    check_data,
    coco,
    require_sound_data,
    voc2012,
)

pytestmark = pytest.mark.filterwarnings("ignore")


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

from __future__ import annotations

import copy
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmdet.registry import DATASETS
from mmengine.config import Config

from spikebench.task import MissingDataError
from spikebench_tasks.openmmlab.data import dataset_info, leaves, located, require_files


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path / "not-this"))
    return tmp_path / "sets"


@pytest.mark.parametrize("name", ["SetThatTakesARoot", "mmdet.SetThatTakesARoot"])
def test_a_data_set_of_a_framework_s_registry_gets_the_data_root(root: Path, name: str):
    class SetThatTakesARoot:
        def __init__(self, root: str) -> None: ...

    DATASETS.register_module(module=SetThatTakesARoot)
    try:
        config = {"default_scope": "mmdet", "test_dataloader": {"dataset": {"type": name}}}
        found = located(config, root)["test_dataloader"]["dataset"]
    finally:
        DATASETS.module_dict.pop("SetThatTakesARoot")
    assert found["root"] == str(root)


class TestLocated:
    @pytest.fixture
    def dataset(self, root: Path) -> Callable[..., dict]:
        def find(**described):
            config = {"train_dataloader": {"dataset": described}}
            return located(config, root)["train_dataloader"]["dataset"]

        return find

    def test_roots_and_joined_names_are_below_the_data_root(self, root: Path):
        config = {
            "train_dataloader": {"batch_size": 2, "dataset": {"data_root": "data/coco/"}},
            "val_dataloader": {"dataset": {"ann_file": "data/coco/annotations/x.json"}},
            "test_dataloader": {"dataset": {"data_prefix": {"img": "data/coco/val2017/"}}},
            "val_evaluator": {"type": "CocoMetric", "ann_file": "data/coco/annotations/x.json"},
            "test_evaluator": [{"seg_prefix": "data/cityscapes/gtFine"}, {"type": "IoUMetric"}],
        }
        before = copy.deepcopy(config)
        found = located(config, root)
        assert config == before
        assert found["train_dataloader"] == {
            "batch_size": 2,
            "dataset": {"data_root": f"{root}/coco"},
        }
        assert found["val_dataloader"]["dataset"] == {"ann_file": f"{root}/coco/annotations/x.json"}
        assert found["test_dataloader"]["dataset"]["data_prefix"] == {"img": f"{root}/coco/val2017"}
        assert found["val_evaluator"]["ann_file"] == f"{root}/coco/annotations/x.json"
        assert found["test_evaluator"][0] == {"seg_prefix": f"{root}/cityscapes/gtFine"}

    def test_wrapped_data_sets_are_moved_too(self, root: Path, dataset):
        one, two = {"data_root": "data/a"}, {"data_root": "./data/b/c"}
        found = dataset(dataset={"datasets": [one, (two,)]}, times=2)
        assert found["dataset"]["datasets"] == [
            {"data_root": f"{root}/a"},
            ({"data_root": f"{root}/b/c"},),
        ]

    def test_what_mmengine_joins_to_a_root_stays(self, dataset):
        described = {"ann_file": "data/x.json", "data_prefix": {"img": "data/x"}}
        assert dataset(data_root="/elsewhere", **described) == {
            "data_root": "/elsewhere",
            **described,
        }

    def test_the_folder_itself_is_a_root(self, root: Path, dataset):
        assert dataset(data_root="data")["data_root"] == str(root)
        assert dataset(data_root="data/")["data_root"] == str(root)

    @pytest.mark.parametrize("given", ["/data/coco", "../data/coco", "database/coco", "my/data/x"])
    def test_other_places_stay(self, dataset, given: str):
        assert dataset(data_root=given)["data_root"] == given

    def test_other_keys_stay(self, root: Path):
        config = {"load_from": "data/weights.pth", "model": {"x": "data/y"}, "val_evaluator": None}
        assert located(config, root) == config

    def test_it_can_be_done_twice_below_a_relative_root(self, tmp_path: Path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        root = Path("data/sets")
        once = located({"test_dataloader": {"dataset": {"data_root": "data/coco"}}}, root)
        assert once["test_dataloader"]["dataset"]["data_root"] == f"{tmp_path}/data/sets/coco"
        assert located(once, root) == once

    def test_a_config_of_mmengine_is_taken_and_can_be_made_of_it(self, root: Path):
        config = Config({"test_dataloader": {"dataset": {"data_root": "data/coco/"}}})
        assert Config(located(config, root)).test_dataloader.dataset.data_root == f"{root}/coco"
        assert config.test_dataloader.dataset.data_root == "data/coco/"

    @pytest.mark.parametrize("task", ["detection", "segmentation"])
    def test_a_data_set_that_makes_its_files_is_told_where(self, root: Path, dataset, task: str):
        import_module(f"spikebench_tasks.{task}.registered")
        kind = f"DigitScenes{task.capitalize()}"
        assert dataset(type=kind, split="test")["root"] == str(root)
        assert dataset(type=kind, split="test", root="/mine")["root"] == "/mine"
        assert "root" not in dataset(type="CocoDataset", data_root="data/coco")


def test_leaves_of_wrappers_are_named_by_their_place():
    a, b, c = ({"type": "CocoDataset", "data_root": name} for name in "abc")
    wrapped = {
        "type": "RepeatDataset",
        "dataset": {"type": "ConcatDataset", "datasets": [a, {"type": "Mix", "dataset": b}]},
    }
    assert list(leaves(wrapped)) == [
        ("dataset.dataset.datasets.0", a),
        ("dataset.dataset.datasets.1.dataset", b),
    ]
    assert list(leaves(c, "here")) == [("here", c)]
    next(leaves(wrapped))[1]["indices"] = 3
    assert a["indices"] == 3


class TestRequireFiles:
    def line(self, described: dict, root: Path) -> str:
        with pytest.raises(MissingDataError) as caught:
            require_files(described, "train_dataloader.dataset", root)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    @pytest.mark.parametrize(
        ("location", "title", "source"),
        [
            ("coco", "COCO 2017", "https://cocodataset.org/#download"),
            ("ade20k", "ADE20K (SceneParse150)", "data.csail.mit.edu"),
            ("VOCdevkit/VOC2012", "Pascal VOC 2012", "host.robots.ox.ac.uk"),
            ("cityscapes", "Cityscapes", "https://www.cityscapes-dataset.com/downloads"),
            ("bccd", "BCCD", "https://github.com/Shenggan/BCCD_Dataset"),
            ("nuclei200", "Nuclei (BBBC038, Data Science Bowl 2018)", "bbbc.broadinstitute.org"),
        ],
    )
    def test_a_published_data_set_says_where_it_comes_from(
        self, root: Path, location: str, title: str, source: str
    ):
        line = self.line({"data_root": str(root / location), "ann_file": "a/b.json"}, root)
        assert title in line
        assert f"{root}/{location}/a/b.json" in line
        assert source in line
        assert "--data-root" in line

    def test_any_other_says_what_names_it(self, root: Path):
        described = {"data_root": str(root / "mine"), "data_prefix": {"img": "pictures"}}
        line = self.line(described, root)
        assert f"{root}/mine/pictures is not there" in line
        assert "train_dataloader.dataset.data_prefix.img" in line
        (root / "mine" / "pictures").mkdir(parents=True)
        assert f"{root}/mine/pictures is empty" in self.line(described, root)
        (root / "mine" / "pictures" / "1.jpg").write_bytes(b"")
        require_files(described, "", root)

    def test_a_root_alone_is_required(self, root: Path):
        assert "train_dataloader.dataset.data_root" in self.line({"data_root": str(root)}, root)
        require_files({"type": "DigitScenesDetection", "split": "train"}, "", root)


def built(**attributes) -> SimpleNamespace:
    given = {"metainfo": {}, "data_root": "", "ann_file": "", "data_prefix": {}, **attributes}
    return SimpleNamespace(**given)


class TestDatasetInfo:
    @pytest.mark.parametrize(
        ("attributes", "expected"),
        [
            (
                {"data_root": "/sets/coco/", "ann_file": "/sets/coco/a/instances_val2017.json"},
                ("coco", "val2017"),
            ),
            (
                {"data_root": "/s/ade20k", "data_prefix": {"img_path": "/s/ade20k/i/validation"}},
                ("ade20k", "validation"),
            ),
            (
                {
                    "data_root": "/s/VOCdevkit/VOC2012",
                    "ann_file": "ImageSets/Segmentation/val.txt",
                    "data_prefix": {"img_path": "JPEGImages"},
                },
                ("voc2012", "val"),
            ),
            (
                {"data_root": "/s/cityscapes", "data_prefix": {"img_path": "leftImg8bit/train/"}},
                ("cityscapes", "train"),
            ),
            ({"data_root": "/s/bccd", "ann_file": "instances_test.json"}, ("bccd", "test")),
            (
                {"data_root": "/s/x", "metainfo": {"name": "mine"}, "data_prefix": {"img": "val"}},
                ("mine", "val"),
            ),
            (
                {"metainfo": {"name": "digit_scenes"}, "split": "test", "ann_file": "a/b.json"},
                ("digit_scenes", "test"),
            ),
            ({}, ("SimpleNamespace", "test")),
        ],
    )
    def test_folder_and_split_are_named(self, attributes, expected):
        assert dataset_info(built(**attributes)) == expected

    def test_of_wrappers_it_is_the_first(self):
        first = built(data_root="/s/coco", ann_file="instances_train2017.json")
        other = built(data_root="/s/other")
        repeated = SimpleNamespace(dataset=SimpleNamespace(datasets=[first, other]))
        assert dataset_info(repeated) == ("coco", "train2017")

"""Configurations that do not fit their data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikebench.task import ConfigError
from tests.tasks.openmmlab import trees
from tests.tasks.openmmlab.checks.data_configs import KINDS, ade20k, check_data, coco, found

pytestmark = pytest.mark.filterwarnings("ignore")


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

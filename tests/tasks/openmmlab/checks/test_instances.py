"""Objects of data sets that are not read as COCO's: Pascal VOC's XML, and lists of instances."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikebench.datacheck import SplitCheck
from spikebench.files import data_root
from spikebench_tasks.openmmlab.checks import data as checks
from spikebench_tasks.openmmlab.checks.instances import check_instances
from tests.tasks.openmmlab.trees import picture

pytestmark = pytest.mark.filterwarnings("ignore")


def check_data(config: Mapping[str, Any], cached: bool = False) -> list[SplitCheck]:
    return checks.check_data(config, data_root(), cached)


def require_sound_data(config: Mapping[str, Any]) -> None:
    checks.require_sound_data(config, data_root())


SOUND = ("cat", (1, 1, 20, 30))


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Makes a data set of two images, the first with the objects given, and its configuration."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    root = tmp_path / "VOC2012"

    def make(*objects: tuple[str, tuple[int, ...]], **options: Any) -> dict[str, Any]:
        (root / "Annotations").mkdir(parents=True)
        for name, found in (("first", objects), ("second", [SOUND])):
            picture(root / "JPEGImages" / f"{name}.jpg", np.random.default_rng(0), 40, 60)
            corners = ("xmin", "ymin", "xmax", "ymax")
            listed = "".join(
                f"<object><name>{kind}</name><difficult>{int(kind == 'dog')}</difficult><bndbox>"
                + "".join(f"<{key}>{at}</{key}>" for key, at in zip(corners, box, strict=True))
                + "</bndbox></object>"
                for kind, box in found
            )
            size = "<size><width>60</width><height>40</height></size>"
            (root / "Annotations" / f"{name}.xml").write_text(f"<a>{size}{listed}</a>")
        (root / "list.txt").write_text("first\nsecond\n")
        dataset = {
            "type": "XMLDataset",
            "data_root": str(root),
            "ann_file": "list.txt",
            "data_prefix": {"sub_data_root": ""},
            "metainfo": {"classes": ("cat", "dog")},
            "pipeline": [{"type": "LoadImageFromFile"}],
            **options,
        }
        return {
            "default_scope": "mmdet",
            "model": {"bbox_head": {"num_classes": 2}},
            "train_dataloader": {"dataset": dataset},
            "test_dataloader": {"dataset": {**dataset, "test_mode": True}},
            "test_evaluator": {"type": "VOCMetric"},
        }

    return make


@pytest.mark.parametrize(
    ("box", "wrong"),
    [
        ((5, 5, 5, 20), "has the box [4, 4, 4, 19], without area; mend the box"),
        ((9, 5, 6, 20), "has the box [8, 4, 5, 19], without area; mend the box"),
        ((62, 5, 80, 20), "has the box [61, 4, 79, 19], outside its image of 60x40 pixels; mend"),
        ((-9, -8, -2, 20), "has the box [-10, -9, -3, 19], outside its image of 60x40"),
    ],
)
def test_a_box_that_no_model_can_learn_is_an_error_naming_the_file(config, tmp_path, box, wrong):
    train, _ = check_data(config(SOUND, ("cat", box)))
    (error,) = train.errors
    assert error.startswith(f"{tmp_path}/VOC2012/Annotations/first.xml: object 1 {wrong}")


def test_boxes_that_reach_beyond_their_image_pass(config):
    train, test = check_data(config(("cat", (-5, -5, 99, 99))))
    assert (train.errors, train.annotations, train.skips, test.errors) == ([], 2, {}, [])


def test_what_is_left_out_is_counted_and_logged(config, caplog: pytest.LogCaptureFixture):
    described = config(
        ("bird", (1, 1, 9, 9)), ("dog", (1, 1, 9, 9)), filter_cfg={"min_size": 100, "x": 1}
    )
    train, test = check_data(described)
    assert train.skips == {"images that filter_cfg leaves out": 2}
    assert test.skips == {"objects of none of the classes": 1, "objects marked to be ignored": 1}
    assert test.annotations == 2
    del described["train_dataloader"]
    caplog.set_level("INFO", "spikebench")
    require_sound_data(described)
    assert "objects of none of the classes: 1" in caplog.text


def test_other_classes_than_those_of_the_data_set_are_an_error(config, tmp_path: Path):
    described = config(SOUND, ("gnu", (1, 1, 9, 9)), type="VOCDataset", metainfo={})
    described["model"]["bbox_head"]["num_classes"] = 20
    (error,) = check_data(described)[0].errors
    assert error == (
        f"{tmp_path}/VOC2012/Annotations/first.xml: 1 of its objects are 'gnu', none of the 20 "
        "classes; set metainfo.classes of the data set"
    )


@pytest.mark.parametrize(
    ("instance", "wrong"),
    [
        ({"bbox": [0, 0, float("nan"), 3], "bbox_label": 0}, "without area"),
        ({"bbox": [0, 0, 3, 3], "bbox_label": 2}, "has the label 2; expected 0 to 1"),
        ({"bbox": [0, 0, 3, 3], "bbox_label": -1}, "has the label -1; expected 0 to 1"),
        ({"bbox": [0, 0, 0, 3], "bbox_label": -1, "ignore_flag": 1}, None),
        ({"bbox": [0.0, 0.0, 0.5, 0.5], "bbox_label": 1}, None),
        ({"mask": []}, None),
    ],
)
def test_instances_of_any_data_set(instance: dict[str, Any], wrong: str | None):
    entries = [{"img_path": "a.jpg", "instances": [instance]}]
    errors, _ = check_instances(entries, ("cat", "dog"), named=True)
    assert [error for error in errors if not (wrong and wrong in error)] == []
    assert len(errors) == (wrong is not None)
    assert all(error.startswith("a.jpg: object 0 ") for error in errors)

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from spikebench.errors import UserError
from spikebench.registry import TASKS
from spikebench.task import ConfigError, Task

NAMES = ("classification", "detection", "segmentation")


@pytest.fixture(params=NAMES)
def task(request: pytest.FixtureRequest) -> Task:
    return TASKS.get(request.param)()


INIT = {"type": "Pretrained", "checkpoint": "15m.pth"}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"load_from": "a.pth"}, {("load_from",): "a.pth"}),
        ({"load_from": None, "model": {"checkpoint": "15m.pth"}}, {}),
        ({"model": [{"init_cfg": INIT}]}, {("model", 0, "init_cfg", "checkpoint"): "15m.pth"}),
        (
            {"init_cfg": ({"type": "Kaiming"}, INIT), "load_from": "a.pth"},
            {("init_cfg", 1, "checkpoint"): "15m.pth", ("load_from",): "a.pth"},
        ),
        ({"init_cfg": {"checkpoint": "torchvision://resnet18"}}, {}),
        ({"load_from": "https://a.b/c.pth"}, {("load_from",): "https://a.b/c.pth"}),
    ],
)
def test_initial_weights_are_found_by_their_place(
    task: Task, config: dict[str, Any], expected: dict
):
    assert task.initial_weights(config) == expected


def test_given_weights_are_initial_weights_of_the_copy(task: Task):
    config = {"load_from": "before.pth"}
    changed = task.with_initial_weights(config, Path("after.pth"))
    assert task.initial_weights(changed) == {("load_from",): "after.pth"}
    assert config == {"load_from": "before.pth"}


def test_checkpoints_are_those_that_training_resumes_from(task: Task, tmp_path: Path):
    for name in ("epoch_2.pth", "epoch=10.ckpt", "iter_3.pth", "best.txt", "other.pth"):
        (tmp_path / name).touch()
    names = [path.name for path in task.checkpoints(tmp_path)]
    assert names == ["epoch_2.pth", "iter_3.pth", "epoch=10.ckpt"]
    assert task.checkpoints(tmp_path / "none") == []


def test_every_metric_has_a_title(task: Task):
    assert task.title
    titles = [spec.title for spec in task.metrics.values()]
    assert all(titles)
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize(
    ("name", "config", "expected"),
    [
        ("classification", {"model": {"backbone": "a"}}, "a"),
        ("detection", {"model": {"backbone": {"type": "SpikingBackbone", "name": "a"}}}, "a"),
        ("segmentation", {"model": {"backbone": {"type": "ResNet"}}}, "resnet"),
    ],
)
def test_the_backbone_is_read_off_a_configuration(name: str, config: dict, expected: str):
    assert TASKS.get(name)().backbone_of(config) == expected


def test_a_classification_that_names_no_backbone_says_how_to():
    with pytest.raises(ConfigError, match="--backbone"):
        TASKS.get("classification")().backbone_of({"model": {"backbone": None}})


def test_the_image_size_of_a_classification_is_changed_in_a_copy():
    task, config = TASKS.get("classification")(), {"data": {"image_size": 32, "batch_size": 2}}
    assert task.with_image_size(config, 48) == {"data": {"image_size": 48, "batch_size": 2}}
    assert config["data"]["image_size"] == 32
    with pytest.raises(ConfigError, match="image_size"):
        task.with_image_size({"data": {}}, 48)
    with pytest.raises(UserError, match="DetectionTask"):
        TASKS.get("detection")().with_image_size({}, 48)


def test_reading_titles_imports_no_framework():
    code = (
        "import sys\n"
        "from spikebench.registry import TASKS\n"
        f"for name in {NAMES!r}: TASKS.get(name)().metrics\n"
        "print({'torch', 'lightning', 'mmengine', 'mmdet', 'mmseg', 'timm'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr

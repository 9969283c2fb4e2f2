"""What passed a check is not read again until it changes."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from mmengine.config import Config

from spikebench_tasks.openmmlab.checks import dataset as check_dataset
from tests.tasks.openmmlab.checks.data_configs import (
    FIRST,
    check_data,
    cityscapes,
    coco,
    require_sound_data,
)

pytestmark = pytest.mark.filterwarnings("ignore")


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

"""Each event data set: its layout, its splits, and what is wrong with it named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spikebench.task import MissingDataError
from spikebench_tasks.classification import events as module
from spikebench_tasks.classification.datasets import build_data_module
from spikebench_tasks.classification.events import EventsDataModule
from spikebench_tasks.datasets import DatasetError
from spikebench_tasks.datasets.events import EventFileError, Events, read_events
from tests.tasks.datasets.events.sets import CLASSES, make_events

SETS = {  # recordings to train on and to test on, of two a class and split
    "nmnist": (20, 20),
    "ncaltech101": (30, 10),
    "cifar10dvs": (30, 10),
    "dvs128gesture": (20, 20),
    "dvs128gesture_clips": (80, 40),
    "hardvs": (20, 20),
}
EVENTS = Events(
    np.arange(9), np.full(9, 345, np.int32), np.full(9, 259, np.int32), np.ones(9, bool)
)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path / "sets"))

    def read(path: Path) -> Events:
        return EVENTS if path.suffix == ".aedat4" else read_events(path)

    monkeypatch.setattr(module, "read_events", read)
    return tmp_path / "sets"


def built(name: str, **options) -> EventsDataModule:
    options = {"num_classes": CLASSES, "time_steps": 3, "batch_size": 4, **options}
    return build_data_module(name, options.pop("limit", None), **options)  # type: ignore[return-value]


@pytest.mark.parametrize("name", SETS)
def test_it_is_read_as_it_is_unpacked(root: Path, name: str):
    make_events(root, name)
    data = built(name)
    data.require(training=True)
    data.setup()
    assert (data.train_samples, len(data.test)) == SETS[name]
    assert len(data.classes) == CLASSES
    frames, labels = next(iter(data.train_dataloader()))
    assert frames.shape == (4, 3, 2, 32, 32)
    tested = [label for _, label in data.test]
    counts = np.bincount(tested, minlength=CLASSES)
    assert set(counts.tolist()) == {SETS[name][1] // CLASSES}
    assert sum(frames.sum() for frames, _ in data.test) > 0
    trained, scored = (
        {(one.path, one.window) for one in data.recordings(split)} for split in ("train", "test")
    )
    assert not trained & scored


@pytest.mark.parametrize("name", SETS)
def test_a_limit_takes_of_every_class(root: Path, name: str):
    make_events(root, name)
    data = built(name, limit=CLASSES)
    data.setup("test")
    assert [label for _, label in data.test] == list(range(CLASSES))


@pytest.mark.parametrize("name", SETS)
def test_a_missing_set_says_where_it_comes_from(root: Path, name: str):
    with pytest.raises(MissingDataError, match="data root"):
        built(name).require(training=False)
    assert built(name).train_samples is None


@pytest.mark.parametrize("name", SETS)
def test_other_classes_are_named(root: Path, name: str):
    make_events(root, name)
    wrong = r"holds 10 .*; expected 11|has no recording of class 10 in the test split; .* the 11"
    with pytest.raises(DatasetError, match=rf"({wrong}) \(data\.num_classes\)"):
        built(name, num_classes=11).require(training=False)


def test_the_last_tenth_in_the_order_of_numbers_is_tested(root: Path):
    folder = make_events(root, "cifar10dvs", each=10)
    tested = [one.path.name for one in built("cifar10dvs").recordings("test")]
    assert tested[:2] == ["cifar10_class0_18.aedat", "cifar10_class0_19.aedat"]
    assert len(list(folder.rglob("*.aedat"))) == 200


def test_gestures_are_cut_where_the_labels_say(root: Path):
    folder = make_events(root, "dvs128gesture", each=1)
    data = built("dvs128gesture", image_size=128)
    data.setup("test")
    events = read_events(folder / "usertest0_led.aedat")
    for label in (0, 7):
        frames, found = data.test[label]
        inside = (events.t >= 100_000 * label) & (events.t < 100_000 * (label + 1))
        assert found == label
        assert round(frames.expm1().sum().item()) == inside.sum()


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        ("12,0,5", r"line 2: class 12; expected 1 to 10 \(data\.num_classes\)"),
        ("1,0", "line 2: '1,0'; expected three whole numbers"),
        ("one,0,5", "line 2: 'one,0,5'; expected three whole numbers"),
    ],
)
def test_labels_of_gestures_that_are_garbled(root: Path, row: str, wrong: str):
    folder = make_events(root, "dvs128gesture")
    path = folder / "usertest0_led_labels.csv"
    path.write_text(f"class,startTime_usec,endTime_usec\n{row}\n")
    with pytest.raises(DatasetError, match=f"{path}, {wrong}"):
        built("dvs128gesture").require(training=False)


def test_a_recording_that_a_list_names_and_is_not_there(root: Path):
    path = make_events(root, "hardvs") / "action_004" / "dvSave-test1.aedat4"
    path.unlink()
    built("hardvs").recordings("train")
    with pytest.raises(MissingDataError, match=f"{path} is not there"):
        built("hardvs").require(training=False)


def test_compact_recordings_of_actions(root: Path):
    folder = make_events(root, "hardvs")
    path = folder / "action_001" / "dvSave-test0.npz"
    np.savez(path, t=EVENTS.t, x=EVENTS.x, y=EVENTS.y, p=EVENTS.on)
    (folder / "test_label.txt").write_text("action_001/dvSave-test0 8 0\n")
    data = built("hardvs")
    assert data.recordings("test") == [(path, 0, None)]
    assert len(read_events(path)) == 9
    for garbled in (path.read_bytes()[:-40], b"", b"PK"):
        path.write_bytes(garbled)
        with pytest.raises(EventFileError, match=f"{path} at byte 0"):
            read_events(path)


@pytest.mark.parametrize("line", ["action_001/a 8 10", "action_001/a", "action_001/a 8 -1"])
def test_labels_of_actions_that_are_garbled(root: Path, line: str):
    path = make_events(root, "hardvs") / "test_label.txt"
    path.write_text(f"\n{line}\n")
    with pytest.raises(DatasetError, match=f"{path}, line 2: '{line}'"):
        built("hardvs").require(training=False)


def test_windows_of_clips_that_are_trained_on_end_before_those_tested(root: Path):
    make_events(root, "dvs128gesture_clips")
    data = built("dvs128gesture_clips", window=300, stride=100, tested_from=1000, length=1450)
    windows = {split: {one.window for one in data.recordings(split)} for split in ("train", "test")}
    assert max(end for _, end in windows["train"]) == 1_000_000
    assert min(start for start, _ in windows["test"]) == 1_000_000
    assert max(end for _, end in windows["test"]) <= 1_450_000
    data.setup("test")
    assert data.classes[:2] == ["gesture1", "gesture2"]

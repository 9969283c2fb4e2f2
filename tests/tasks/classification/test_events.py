"""Recordings of event cameras as a data set of classification."""

from __future__ import annotations

import errno
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from spikebench import profile_operations
from spikebench.registry import UnknownNameError
from spikebench.task import ConfigError, MissingDataError, Run
from spikebench_tasks.classification import loop
from spikebench_tasks.classification.datasets.nmnist import NMNISTDataModule
from spikebench_tasks.classification.events import EventFrames, RandomRoll
from spikebench_tasks.classification.task import ClassificationTask
from spikebench_tasks.datasets import DatasetError
from spikebench_tasks.datasets.events import EventFileError, cache
from spikebench_tasks.datasets.events.cache import cached_frames
from tests.tasks.datasets.events.files import atis, some_events
from tests.tasks.datasets.events.sets import make_events
from tests.tasks.small import CONFIGS


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "spikebench" / "frames"


@pytest.fixture
def nmnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two recordings of each digit and split."""
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path / "sets"))
    return make_events(tmp_path / "sets", "nmnist")


def of_test(**options) -> EventFrames:
    data = NMNISTDataModule(**options)
    data.setup("test")
    return data.test.dataset  # type: ignore[return-value]


@pytest.mark.parametrize("frames", ["count", "time"])
def test_frames_have_what_a_backbone_reads(nmnist: Path, frames: str):
    data = NMNISTDataModule(time_steps=3, frames=frames, image_size=48, batch_size=4)
    data.setup()
    images, labels = next(iter(data.train_dataloader()))
    assert images.shape == (4, 3, 2, 48, 48)
    assert images.shape[1:] == data.example().shape[1:]
    assert (images >= 0).all()
    assert labels.dtype == torch.int64
    assert (data.train_samples, len(data.test)) == (20, 20)
    assert [label for _, label in data.test] == [digit for digit in range(10) for _ in range(2)]


def test_counts_are_those_of_the_file(nmnist: Path):
    frames, label = of_test(time_steps=2, image_size=34)[5]
    assert label == 2
    assert frames.expm1().sum().item() == pytest.approx(40 + 10 * 2 + 1, rel=1e-5)


@pytest.mark.parametrize(("frames", "per_frame", "total"), [("count", 8, 16), ("time", 10**9, 61)])
def test_frames_of_fixed_size(nmnist: Path, frames: str, per_frame: int, total: int):
    data = of_test(time_steps=2, image_size=34, frames=frames, per_frame=per_frame)
    assert data[5][0].expm1().sum().item() == pytest.approx(total, rel=1e-5)
    assert data[5][0].equal(data[5][0])
    assert not of_test(time_steps=2, image_size=34, frames=frames)[5][0].equal(data[5][0])


def test_frames_of_no_events(nmnist: Path):
    with pytest.raises(ConfigError, match=r"data\.per_frame is 0"):
        of_test(per_frame=0)


def test_an_unknown_name_suggests_one(nmnist: Path):
    with pytest.raises(UnknownNameError, match="frames 'cuont'.*count"):
        of_test(frames="cuont")
    with pytest.raises(UnknownNameError, match=r"data\.augment 'rol'.*roll"):
        NMNISTDataModule(augment={"rol": 3})


class TestRun:
    @pytest.fixture
    def new_run(self, nmnist: Path, make_run: Callable[..., Run]) -> Callable[..., Run]:
        def make(*overrides: str) -> Run:
            short = ("trainer.max_epochs=1", "data.batch_size=10", *overrides)
            path = CONFIGS / "classification" / "nmnist.py"
            config = ClassificationTask().resolve(path, "meta_spikeformer_nano", {}, short)
            return make_run("classification", config, limit=None)

        return make

    def test_it_trains_is_scored_and_counted(
        self, new_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ):
        run = new_run("data.augment.roll=1")
        # the run's data root counts, not the environment's
        monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path / "nowhere"))
        checkpoint = loop.train(run)
        metrics, dataset, *_ = loop.evaluate(run, checkpoint)
        assert metrics.keys() == {"top1", "top5", "ece"}
        assert (dataset.name, dataset.train_samples, dataset.test_samples) == ("nmnist", 20, 20)
        probe = loop.probe(run, checkpoint)
        trained, untrained = (
            profile_operations(one.model, one.batches, forward=one.forward)
            for one in (probe, loop.sketch(run.config))
        )
        assert trained.synaptic_operations > 0
        assert trained.dense_macs == untrained.dense_macs

    def test_frames_are_of_the_time_steps_of_the_model(self, new_run: Callable[..., Run]):
        with pytest.raises(ConfigError, match=r"data\.time_steps .*3 .*4"):
            loop.train(new_run("data.time_steps=3"))


class TestBadData:
    def test_a_missing_data_set_says_where_it_comes_from(self, tmp_path: Path, monkeypatch):
        monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path))
        with pytest.raises(MissingDataError, match="N-MNIST .*garrickorchard"):
            NMNISTDataModule().require(training=True)

    def test_fewer_classes_than_expected(self, nmnist: Path):
        with pytest.raises(DatasetError, match="10 .*11 "):
            NMNISTDataModule(num_classes=11).require(training=False)

    def test_a_class_without_recordings(self, nmnist: Path):
        for path in (nmnist / "Train" / "4").iterdir():
            path.unlink()
        (nmnist / "Train" / "4" / "Thumbs.db").touch()
        NMNISTDataModule().require(training=False)
        with pytest.raises(MissingDataError, match="Train/4 "):
            NMNISTDataModule().require(training=True)

    def test_a_missing_split_is_said_first(self, nmnist: Path):
        (nmnist / "Test").rename(nmnist / "elsewhere")
        with pytest.raises(MissingDataError, match="Test is not there"):
            NMNISTDataModule().require(training=True)
        assert NMNISTDataModule().train_samples == 20

    def test_what_is_no_recording_is_passed_over(self, nmnist: Path):
        for name in ("Thumbs.db", "._00000.bin"):
            (nmnist / "Test" / "4" / name).touch()
        assert len(NMNISTDataModule().recordings("test")) == 20

    def test_splits_of_other_classes(self, nmnist: Path):
        (nmnist / "Train" / "4").rename(nmnist / "Train" / "four")
        with pytest.raises(DatasetError, match="Train .*'four' "):
            NMNISTDataModule().require(training=True)

    def test_a_garbled_recording_is_named(self, nmnist: Path):
        path = nmnist / "Test" / "0" / "00000.bin"
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(EventFileError, match=f"{path} at byte 195"):
            of_test()[0]

    def test_a_recording_of_another_camera_is_named(self, nmnist: Path):
        path = nmnist / "Test" / "0" / "00000.bin"
        path.write_bytes(atis([(1, 100, 2, True)]))
        with pytest.raises(DatasetError, match=f"{path}: .*100.* 2"):
            of_test()[0]


class TestCache:
    def test_a_recording_is_decoded_once(self, nmnist: Path, kept: Path, monkeypatch):
        first = of_test()[3][0]
        monkeypatch.setattr(EventFrames, "_make", lambda self, path: pytest.fail("made again"))
        assert of_test()[3][0].equal(first)
        assert len(list(kept.rglob("*.npy"))) == 1

    def test_other_frames_and_a_changed_file_are_made_anew(self, nmnist: Path, kept: Path):
        two, three = (of_test(time_steps=steps)[0][0] for steps in (2, 3))
        assert (len(two), len(three)) == (2, 3)
        path = nmnist / "Test" / "0" / "00000.bin"
        path.write_bytes(atis(some_events(41, side=34)))
        assert not of_test(time_steps=2)[0][0].equal(two)
        assert len(list(kept.rglob("*.npy"))) == 3

    def test_a_file_that_may_not_be_read_is_made_anew(self, nmnist: Path, kept: Path, monkeypatch):
        first = of_test()[0][0]

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        monkeypatch.setattr(cache.np, "load", refuse)
        assert of_test()[0][0].equal(first)

    @pytest.mark.parametrize("content", [b"", b"garbage", None])
    def test_a_file_that_is_cut_off_is_made_anew(self, nmnist: Path, kept: Path, content):
        first = of_test()[0][0]
        (file,) = kept.rglob("*.npy")
        file.write_bytes(file.read_bytes()[:-9] if content is None else content)
        assert of_test()[0][0].equal(first)
        np.testing.assert_array_equal(np.load(file), first)

    def test_processes_may_build_one_file_at_once(self, tmp_path: Path, kept: Path):
        (tmp_path / "a.bin").touch()
        fork = multiprocessing.get_context("fork")
        meeting, found = fork.Barrier(4), fork.Queue()

        def build() -> None:
            def make() -> torch.Tensor:
                meeting.wait(60)  # nobody finds what another made
                return torch.arange(1e5)

            found.put(cached_frames(tmp_path / "a.bin", {}, make).numpy())

        processes = [fork.Process(target=build) for _ in range(4)]
        for process in processes:
            process.start()
        for _ in processes:
            np.testing.assert_array_equal(found.get(timeout=60), np.arange(1e5))
        for process in processes:
            process.join()
        (file,) = (path for path in kept.rglob("*") if path.is_file())
        np.testing.assert_array_equal(np.load(file), np.arange(1e5))

    def test_workers_build_it(self, nmnist: Path, kept: Path):
        data = NMNISTDataModule(batch_size=2, num_workers=2)
        data.setup()
        epochs = [list(data.test_dataloader()) for _ in range(2)]
        for (first, _), (second, _) in zip(*epochs, strict=True):
            assert first.equal(second)
        assert len(list(kept.rglob("*.npy"))) == 20
        assert not [path for path in kept.rglob("*") if path.is_file() and path.suffix != ".npy"]

    def test_a_full_disk_costs_time_and_no_run(self, nmnist: Path, kept: Path, monkeypatch):
        first = of_test()[0][0]
        for file in kept.rglob("*.npy"):
            file.unlink()

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(cache.np, "save", full)
        with pytest.warns(UserWarning, match=f"{kept}: No space left"):
            assert of_test()[0][0].equal(first)
        assert not [path for path in kept.rglob("*") if path.is_file()]

    def test_its_files_tell_versions_apart(self, nmnist: Path, kept: Path, monkeypatch):
        of_test()[0]
        monkeypatch.setattr(cache, "_VERSION", -1)
        of_test()[0]
        assert len(list(kept.rglob("*.npy"))) == 2


@pytest.mark.parametrize("augment", [{"flip": 1.0}, {"cutout": 1.0}, {"roll": 5}])
def test_all_time_steps_are_augmented_alike(nmnist: Path, augment: dict):
    data = NMNISTDataModule(time_steps=3, augment=augment)
    steps = data._augmentation()
    torch.manual_seed(0)
    frames = torch.arange(32.0 * 32).reshape(1, 1, 32, 32).expand(3, 2, 32, 32) + 1
    for _ in range(5):
        changed = steps(frames.clone())
        assert not changed.equal(frames)
        assert all(changed[t, p].equal(changed[0, 0]) for t in range(3) for p in range(2))


def test_a_roll_moves_all_time_steps_alike():
    torch.manual_seed(0)
    frames = torch.rand(1, 2, 8, 8).expand(3, -1, -1, -1)
    rolled = [RandomRoll(2)(frames) for _ in range(50)]
    expected = [frames.roll((y, x), (-2, -1)) for y in range(-2, 3) for x in range(-2, 3)]
    assert all(any(one.equal(each) for each in expected) for one in rolled)
    assert len({tuple(one.flatten().tolist()) for one in rolled}) > 10

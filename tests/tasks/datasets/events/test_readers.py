"""Recordings of event cameras against SpikingJelly's readers, and cut off and garbled ones."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spikebench.registry import UnknownNameError
from spikebench_tasks.datasets import DatasetError
from spikebench_tasks.datasets.events import (
    EventFileError,
    Events,
    frames_by_count,
    frames_by_time,
    read_events,
)
from tests.tasks.datasets.events import files
from tests.tasks.datasets.events.files import some_events

FORMATS = {
    "atis.bin": files.atis,
    "atis.bs2": files.atis,
    "two.aedat": files.aedat2,
    "three.aedat": files.aedat31,
    "four.npz": files.npz,
}


def read(folder: Path, name: str, data: bytes) -> Events:
    path = folder / name
    path.write_bytes(data)
    return read_events(path)


def as_rows(events: Events) -> list[tuple]:
    return list(zip(events.t, events.x, events.y, events.on, strict=True))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("count", [0, 1, 50])
def test_events_are_those_that_were_written(tmp_path: Path, name: str, count: int):
    written = some_events(count)
    events = read(tmp_path, name, FORMATS[name](written))
    assert as_rows(events) == written
    assert len(events) == count
    kinds = [field.dtype for field in (events.t, events.x, events.y, events.on)]
    assert kinds == [np.int64, np.int32, np.int32, np.bool_]


def test_a_slice_and_a_mask_choose_events(tmp_path: Path):
    events = read(tmp_path, "a.bin", files.atis(some_events()))
    assert as_rows(events[3:5]) == as_rows(events)[3:5]
    assert as_rows(events[events.on]) == [row for row in as_rows(events) if row[3]]


def test_clocks_of_atis_run_on_behind_a_record_in_row_240(tmp_path: Path):
    records = [(5, 1, 2, True), (0, 0, 240, False), (7, 1, 2, True), (0, 0, 240, False)]
    events = read(tmp_path, "a.bin", files.atis([*records, (1, 3, 4, False)]))
    assert as_rows(events) == [(5, 1, 2, True), (7 + 8192, 1, 2, True), (1 + 2 * 8192, 3, 4, False)]


def test_clocks_of_aedat3_are_of_more_than_31_bits(tmp_path: Path):
    events = read(tmp_path, "a.aedat", files.aedat31([(7, 1, 2, True)], overflow=3))
    assert events.t.tolist() == [7 + 3 * 2**31]


def test_another_format_is_named(tmp_path: Path):
    with pytest.raises(UnknownNameError, match=r"'\.aedta'.*\.aedat"):
        read(tmp_path, "a.aedta", b"")
    with pytest.raises(EventFileError, match=r"byte 0.*AER-DAT1\.0"):
        read(tmp_path, "a.aedat", b"#!AER-DAT1.0\r\n")
    with pytest.raises(EventFileError, match=r"byte 0.*AER-DAT4\.0"):
        read(tmp_path, "a.aedat4", b"#!AER-DAT3.1\r\n")


class TestAgainstSpikingJelly:
    utils = pytest.importorskip("spikingjelly.datasets.utils")

    @pytest.mark.parametrize(("name", "reader"), [("a.bin", "load_ATIS_bin")])
    def test_atis(self, tmp_path: Path, name: str, reader: str):
        self.compare(read(tmp_path, name, files.atis(some_events())), tmp_path / name, reader)

    def test_aedat31(self, tmp_path: Path):
        packets = files.aedat31(some_events(14))  # it reads those that are not valid, too
        ours = read(tmp_path, "a.aedat", packets)
        theirs = self.utils.load_aedat_v3(tmp_path / "a.aedat")
        at = [0, *range(2, 15)]
        for name, field in zip("txyp", (ours.t, ours.x, ours.y, ours.on), strict=True):
            np.testing.assert_array_equal(field, theirs[name][at])

    def test_aedat2(self, tmp_path: Path):
        module = pytest.importorskip("spikingjelly.datasets.cifar10_dvs")
        ours = read(tmp_path, "a.aedat", files.aedat2(some_events()))
        theirs = module._load_origin_data(tmp_path / "a.aedat")
        # it turns the images of CIFAR10-DVS
        for name, field in zip("tyxp", (ours.t, ours.x, ours.y, ours.on), strict=True):
            np.testing.assert_array_equal(field, theirs[name])

    def compare(self, ours: Events, path: Path, reader: str) -> None:
        theirs = getattr(self.utils, reader)(path)
        for name, field in zip("txyp", (ours.t, ours.x, ours.y, ours.on), strict=True):
            np.testing.assert_array_equal(field, theirs[name])

    @pytest.mark.data
    def test_samples(self, samples: Path):
        path = samples / "event_samples" / "ncaltech101_Faces_easy_image_0001.bin"
        events = read_events(path)
        assert (len(events), events.x.max(), events.y.max()) == (67_445, 150, 172)
        self.compare(events, path, "load_ATIS_bin")


@pytest.mark.data
def test_aedat4_is_read_through_the_package(samples: Path):
    pytest.importorskip("aedat")
    events = read_events(samples / "event_samples" / "davis346_sample.aedat4")
    assert len(events) == 6_676
    assert (events.x.max() < 346, events.y.max() < 260) == (True, True)
    assert (np.diff(events.t) >= 0).all()


def read_or_refuse(path: Path, data: bytes) -> None:
    """Events of equally many columns, rows and clocks, or the one error with file and place."""
    path.write_bytes(data)
    refused, events = None, None
    try:
        events = read_events(path)
    except EventFileError as error:
        refused = error
    if refused is not None:
        assert str(refused).startswith(f"{path} at byte {refused.offset}: ")
        assert 0 <= refused.offset <= len(data)
        assert "\n" not in str(refused)
    if events is not None:
        assert len(events.x) == len(events.y) == len(events.on) == len(events)
        for make in (frames_by_count, frames_by_time):
            with contextlib.suppress(DatasetError):  # such as an event outside the camera
                assert make(events, 4, (128, 128)).shape == (4, 2, 128, 128)


FUZZ = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("name", FORMATS)
@FUZZ
@given(data=st.data())
def test_cut_off_and_garbled_files_are_read_or_refused(tmp_path: Path, name: str, data):
    whole = bytearray(FORMATS[name](some_events()))
    for _ in range(data.draw(st.integers(0, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    read_or_refuse(tmp_path / name, bytes(whole[: data.draw(st.integers(0, len(whole)))]))


@pytest.mark.parametrize("head", [b"", b"#!AER-DAT2.0\r\n", b"#!AER-DAT3.1\r\n#!END-HEADER\r\n"])
@FUZZ
@given(rest=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path: Path, head: bytes, rest: bytes):
    for name in FORMATS:
        read_or_refuse(tmp_path / name, head + rest)


@pytest.mark.parametrize("name", list(FORMATS)[:-1])  # of an archive, zipfile tells no place
def test_a_file_that_is_cut_off_is_named_with_the_place(tmp_path: Path, name: str):
    make: Callable[..., bytes] = FORMATS[name]
    with pytest.raises(EventFileError) as caught:
        read(tmp_path, name, make(some_events())[:-3])
    assert caught.value.path == tmp_path / name
    assert caught.value.offset > 0


@pytest.mark.data
@pytest.mark.parametrize("damage", ["cut", "garbled", "text"])
def test_aedat4_that_is_garbled_does_not_end_the_process(samples: Path, tmp_path: Path, damage):
    pytest.importorskip("aedat")
    data = bytearray((samples / "event_samples" / "davis346_sample.aedat4").read_bytes())
    if damage == "cut":
        data = data[:100_000]
    else:
        start, value = (40, 255) if damage == "garbled" else (230, 0xC3)
        data[start : start + 40 : 2] = bytes([value]) * 20
    path = tmp_path / "a.aedat4"
    path.write_bytes(data)
    with pytest.raises(EventFileError, match=f"{path} at byte "):
        read_events(path)


@pytest.mark.data
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_aedat4_that_is_cut_off_or_garbled_is_read_or_refused(samples: Path, tmp_path: Path, data):
    pytest.importorskip("aedat")
    whole = bytearray((samples / "event_samples" / "davis346_sample.aedat4").read_bytes())
    for _ in range(data.draw(st.integers(0, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    read_or_refuse(tmp_path / "a.aedat4", bytes(whole[: data.draw(st.integers(0, len(whole)))]))


@pytest.mark.parametrize(
    "wrong",
    [
        {"x": np.array([0.5])},
        {"y": np.array([np.nan])},
        {"t": np.array(["a"])},
        {"p": np.array(1)},
        {"x": np.zeros((1, 1), int)},
        {"x": np.zeros(2, int)},
        {"y": np.array([2**32 + 5])},
    ],
)
def test_arrays_that_are_no_events_are_refused(tmp_path: Path, wrong: dict[str, np.ndarray]):
    sound = {name: np.zeros(1, int) for name in "txyp"}
    np.savez(tmp_path / "a.npz", **{**sound, **wrong})
    with pytest.raises(EventFileError, match=r"a\.npz at byte 0: "):
        read_events(tmp_path / "a.npz")


@pytest.mark.parametrize("off", [0, -1])
def test_polarities_of_archives(tmp_path: Path, off: int):
    sound = {name: np.zeros(2, int) for name in "txy"}
    np.savez(tmp_path / "A.NPZ", **sound, p=np.array([off, 1]))
    (tmp_path / "A.NPZ.npz").rename(tmp_path / "A.NPZ")
    assert read_events(tmp_path / "A.NPZ").on.tolist() == [False, True]


def test_one_array_is_no_archive(tmp_path: Path):
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(EventFileError, match="t, x, y, p"):
        read_events(tmp_path / "a.npz")

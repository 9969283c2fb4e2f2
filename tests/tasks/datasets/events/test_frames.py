"""Events into frames: against SpikingJelly's, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spikebench_tasks.datasets import DatasetError
from spikebench_tasks.datasets.events import Events, frames_by_count, frames_by_time
from tests.tasks.datasets.events.files import some_events

SIZE = (128, 128)
MAKERS = [frames_by_count, frames_by_time]


def events_of(rows: list[tuple]) -> Events:
    t, x, y, on = zip(*rows, strict=True) if rows else ([], [], [], [])
    return Events(
        np.array(t, np.int64), np.array(x, np.int32), np.array(y, np.int32), np.array(on, bool)
    )


@pytest.mark.parametrize(("count", "time_steps"), [(50, 4), (50, 1), (3, 3), (51, 10)])
def test_equal_counts_are_spikingjellys(count: int, time_steps: int):
    utils = pytest.importorskip("spikingjelly.datasets.utils")
    events = events_of(some_events(count))
    theirs = utils.integrate_events_by_fixed_frames_number(
        {"t": events.t, "x": events.x, "y": events.y, "p": events.on.astype(int)},
        "number",
        time_steps,
        *SIZE,
    )
    np.testing.assert_array_equal(frames_by_count(events, time_steps, SIZE).numpy(), theirs)


def test_windows_are_of_equal_duration():
    events = events_of([(t, 0, 1, True) for t in (100, 109, 110, 125, 139)])
    counts = frames_by_time(events, 4, (2, 2))[:, 1, 1, 0]
    assert counts.tolist() == [2, 1, 1, 1]
    assert frames_by_time(events, 2, (2, 2), per_frame=10)[:, 1, 1, 0].tolist() == [2, 1]
    assert frames_by_time(events, 6, (2, 2), per_frame=10)[:, 1, 1, 0].tolist() == [
        2,
        1,
        1,
        1,
        0,
        0,
    ]


def test_frames_of_a_fixed_number_of_events():
    events = events_of([(t, 0, 1, True) for t in range(5)])
    assert frames_by_count(events, 2, (2, 2), per_frame=2)[:, 1, 1, 0].tolist() == [2, 2]
    assert frames_by_count(events, 4, (2, 2), per_frame=2)[:, 1, 1, 0].tolist() == [2, 2, 1, 0]


def test_times_of_a_garbled_file_do_not_wrap_around():
    events = events_of([(0, 0, 1, True), (2**62, 0, 1, True)])
    with pytest.raises(DatasetError, match="4611686018427387904"):
        frames_by_time(events, 4, (2, 2))


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("count", [0, 1, 50])
def test_no_event_is_lost(make, count: int):
    events = events_of(some_events(count))
    frames = make(events, 4, SIZE)
    assert frames.shape == (4, 2, *SIZE)
    assert frames.dtype == torch.float32
    on = int(events.on.sum())
    torch.testing.assert_close(frames.sum((0, 2, 3)), torch.tensor([count - on, on]).float())


@pytest.mark.parametrize("make", MAKERS)
def test_events_outside_the_camera_are_named(make):
    events = events_of([(0, 1, 1, True), (5, 3, 40, True)])
    with pytest.raises(DatasetError, match="3, row 40"):
        make(events, 2, (34, 34))

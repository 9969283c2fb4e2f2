"""Events into frames: a tensor of two channels, OFF and ON, for each time step."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from spikebench_tasks.datasets import DatasetError
from spikebench_tasks.datasets.events.readers import Events

Size = tuple[int, int]


_LONGEST = 2**53  # microseconds: 285 years, and whole numbers as doubles


def frames_by_count(
    events: Events, time_steps: int, size: Size, per_frame: int | None = None
) -> Tensor:
    """Count events in T parts of as many events each.

    Args:
        events: N of them, in the order of time.
        time_steps: T.
        size: height and width of the camera.
        per_frame: events of a part, those behind the last left out; None divides all N, those left
            over in the last part, as SpikingJelly's `split_by='number'` (Fang et al., ICCV 2021,
            arXiv 2007.05785, section 4).

    Returns:
        Counts, float32 of shape `(T, 2, H, W)`.

    Raises:
        DatasetError: an event lies outside the camera.
    """
    if per_frame is not None:
        events = events[: per_frame * time_steps]
        return _counted(events, np.arange(len(events)) // per_frame, time_steps, size)
    share = len(events) // time_steps
    step = np.arange(len(events)) // share if share else np.arange(len(events))
    return _counted(events, np.minimum(step, time_steps - 1), time_steps, size)


def frames_by_time(
    events: Events, time_steps: int, size: Size, per_frame: int | None = None
) -> Tensor:
    """Count events in T windows of equal duration.

    Args:
        events: N of them.
        time_steps: T.
        size: height and width of the camera.
        per_frame: microseconds of a window, from the first event on, what comes later left out;
            None divides the whole recording.

    Returns:
        Counts, float32 of shape `(T, 2, H, W)`.

    Raises:
        DatasetError: an event lies outside the camera.
    """
    if not len(events):
        return torch.zeros(time_steps, 2, *size)
    since = _since_first(events)
    step = (
        since // per_frame
        if per_frame is not None
        else since * time_steps // (int(since.max()) + 1)
    )
    return _counted(events[step < time_steps], step[step < time_steps], time_steps, size)


def _since_first(events: Events) -> np.ndarray:
    """Microseconds since the first event."""
    first, last = int(events.t.min()), int(events.t.max())
    if last - first >= _LONGEST:
        raise DatasetError(
            f"events from {first} to {last} microseconds; expected less than {_LONGEST} between"
        )
    return events.t - first


def _counted(events: Events, step: np.ndarray, time_steps: int, size: Size) -> Tensor:
    height, width = size
    outside = (events.x < 0) | (events.x >= width) | (events.y < 0) | (events.y >= height)
    if outside.any():
        first = int(outside.argmax())
        raise DatasetError(
            f"an event at column {events.x[first]}, row {events.y[first]}; expected less than "
            f"{width} columns and {height} rows"
        )
    place = ((step * 2 + events.on) * height + events.y) * width + events.x
    counts = np.bincount(place, minlength=time_steps * 2 * height * width)
    return torch.from_numpy(counts.astype(np.float32)).view(time_steps, 2, height, width)

"""Recordings of event cameras: files into events, events into the frames that a backbone reads."""

from spikebench_tasks.datasets.events.frames import frames_by_count, frames_by_time
from spikebench_tasks.datasets.events.readers import EventFileError, Events, read_events

__all__ = [
    "EventFileError",
    "Events",
    "frames_by_count",
    "frames_by_time",
    "read_events",
]

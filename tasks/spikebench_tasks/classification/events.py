"""The bases of data sets that event cameras recorded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import Dataset, Subset
from torchvision.transforms import v2

from spikebench.registry import unknown_name
from spikebench.task import ConfigError, MissingDataError
from spikebench_tasks.classification.datamodule import DataModule
from spikebench_tasks.classification.folders import require_classes
from spikebench_tasks.classification.options import EventAugmentation, typed
from spikebench_tasks.datasets import DatasetError, Split
from spikebench_tasks.datasets.events import frames_by_count, frames_by_time, read_events
from spikebench_tasks.datasets.events.cache import cached_frames
from spikebench_tasks.datasets.events.readers import SUFFIXES
from spikebench_tasks.datasets.published import evenly_spread

_FRAMES = {"count": frames_by_count, "time": frames_by_time}

_TESTED_SHARE = 10  # without a split of its own, one recording in ten is tested


class Recording(NamedTuple):
    """A sample of a data set.

    Attributes:
        path: the file.
        label: the class.
        window: the first microsecond of the file's clock and the one after the last; None is all.
    """

    path: Path
    label: int
    window: tuple[int, int] | None = None


class RandomRoll(torch.nn.Module):
    """Moves frames by whole pixels at random, the same for all time steps.

    What leaves on one side comes in on the other (Li et al., ECCV 2022, arXiv 2203.06145, with
    rolls of a few pixels as the usual augmentation of event frames).

    Args:
        pixels: greatest move in each direction.
    """

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.pixels = pixels

    def forward(self, frames: Tensor) -> Tensor:
        """Frames `(T, 2, H, W)` to frames of the same shape."""
        down, right = torch.randint(-self.pixels, self.pixels + 1, (2,)).tolist()
        return frames.roll((down, right), (-2, -1))


class EventFrames(Dataset[tuple[Tensor, int]]):
    """Frames of recordings, counts as log(1 + n).

    Args:
        recordings: the samples.
        camera: height and width.
        frames: by what events are divided into time steps: count or time.
        time_steps: T.
        image_size: pixels per side that frames are brought to, by the mean over areas.
        transform: what is done to frames `(T, 2, image_size, image_size)`.
        per_frame: events or microseconds of a frame; None divides the whole recording.

    Raises:
        UnknownNameError: there is no such way to make frames.
        ConfigError: `per_frame` is less than 1.
    """

    def __init__(
        self,
        recordings: list[Recording],
        camera: tuple[int, int],
        frames: str,
        time_steps: int,
        image_size: int,
        transform: torch.nn.Module | None = None,
        per_frame: int | None = None,
    ) -> None:
        if frames not in _FRAMES:
            raise unknown_name("frames", frames, _FRAMES)
        if per_frame is not None and per_frame < 1:
            raise ConfigError(
                f"data.per_frame is {per_frame}; expected at least 1 event or microsecond, or None"
            )
        self.per_frame = per_frame
        self.recordings = recordings
        self.camera = camera
        self.frames = frames
        self.time_steps = time_steps
        self.image_size = image_size
        self.transform = transform

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Frames `(T, 2, image_size, image_size)` and the class.

        Raises:
            DatasetError: the file is garbled or of another camera; the message names it.
        """
        recording = self.recordings[index]
        described = {
            "window": recording.window,
            "camera": self.camera,
            "frames": self.frames,
            "time_steps": self.time_steps,
            "image_size": self.image_size,
            **({} if self.per_frame is None else {"per_frame": self.per_frame}),
        }
        frames = cached_frames(recording.path, described, lambda: self._make(recording))
        return (frames if self.transform is None else self.transform(frames)), recording.label

    def _make(self, recording: Recording) -> Tensor:
        path, _, window = recording
        events = read_events(path)
        if window is not None:
            events = events[(events.t >= window[0]) & (events.t < window[1])]
        try:
            counts = _FRAMES[self.frames](events, self.time_steps, self.camera, self.per_frame)
        except DatasetError as error:
            raise DatasetError(f"{path}: {error}") from error
        return F.interpolate(counts, (self.image_size, self.image_size), mode="area").log1p()


class EventsDataModule(DataModule):
    """Recordings of a data set, which a subclass names and finds.

    Frames are made of T parts of each recording and kept on disk.

    Args:
        num_classes: number of classes there must be; None is the data set's.
        time_steps: T, as the model's.
        frames: by what a recording is divided into time steps: count (equally many events in
            each) or time (equal durations).
        per_frame: events or microseconds of a time step, from the beginning on; None divides the
            whole recording.
        image_size: pixels per side.
        batch_size: recordings per step and process.
        num_workers: loader processes.
        augment: what happens to training frames; a dictionary of its fields, too.
        limit: use at most this many recordings of each split, spread evenly over the classes.
        data_root: holds one folder per data set; None is $SPIKEBENCH_DATA, else `data`.
    """

    camera: tuple[int, int]
    time_steps: int
    train: Subset
    test: Subset

    def __init__(
        self,
        num_classes: int | None = None,
        time_steps: int = 4,
        frames: str = "count",
        image_size: int = 32,
        batch_size: int = 32,
        num_workers: int = 0,
        augment: EventAugmentation | None = None,
        limit: int | None = None,
        per_frame: int | None = None,
        data_root: Path | None = None,
    ) -> None:
        super().__init__(num_classes, image_size, batch_size, num_workers, limit, data_root)
        self.time_steps = time_steps
        self.frames = frames
        self.per_frame = per_frame
        self.augment = typed(EventAugmentation, augment or {}, "data.augment")

    def example(self) -> Tensor:
        """Frames of noise, `(1, T, 2, H, W)`."""
        return torch.randn(1, self.time_steps, 2, self.image_size, self.image_size).abs()

    def recordings(self, split: Split) -> list[Recording]:
        """The samples of a split, in any order.

        Raises:
            MissingDataError: the split or a file is not there, or is empty.
            DatasetError: there are more or fewer classes than `num_classes`.
        """
        raise NotImplementedError

    def class_names(self) -> list[str]:
        """The names of the classes, in the order of the labels."""
        raise NotImplementedError

    def require(self, training: bool) -> None:
        """Look for the recordings.

        Raises:
            MissingDataError: a split is not there, or is empty.
            DatasetError: there are more or fewer classes than `num_classes`, or one is empty.
        """
        splits: tuple[Split, ...] = ("train", "test") if training else ("test",)
        for split in splits:
            found = {recording.label for recording in self.recordings(split)}
            for label in range(self.num_classes):
                if label not in found:
                    raise DatasetError(
                        f"{self.folder.absolute()} has no recording of class {label} in "
                        f"the {split} split; expected some of each of the {self.num_classes} "
                        f"(data.num_classes); {self.published.remedy}"
                    )

    def setup(self, stage: str | None = None) -> None:
        if stage in (None, "fit"):
            self.train = self._frames("train", self._augmentation())
        self.test = self._frames("test")
        self.classes = self.class_names()

    @property
    def train_samples(self) -> int | None:
        """Recordings to train on; None where there are none."""
        try:
            return len(self._frames("train"))
        except MissingDataError:
            return None

    def _augmentation(self) -> torch.nn.Module | None:
        steps: list[torch.nn.Module] = []
        if self.augment.roll:
            steps.append(RandomRoll(self.augment.roll))
        if self.augment.flip:
            steps.append(v2.RandomHorizontalFlip(self.augment.flip))
        if self.augment.cutout:
            steps.append(v2.RandomErasing(self.augment.cutout))
        return torch.nn.Sequential(*steps) if steps else None

    def _frames(self, split: Split, transform: Any = None) -> Subset:
        data = EventFrames(
            sorted(self.recordings(split), key=lambda recording: recording.label),
            self.camera,
            self.frames,
            self.time_steps,
            self.image_size,
            transform,
            self.per_frame,
        )
        return Subset(data, evenly_spread(len(data), self.limit))


class ClassFoldersDataModule(EventsDataModule):
    """One folder per class, below one folder per split where the data set has splits.

    Of one that has none, the last tenth of each class is tested, in the order of the numbers in
    the names of its files.
    """

    splits: Mapping[Split, str] | None = None

    def require(self, training: bool) -> None:
        super().require(training)
        if training and self.splits:
            train, test = (self.folder / self.splits[each] for each in ("train", "test"))
            require_classes(self.published, train, self.num_classes, SUFFIXES, like=test)

    def recordings(self, split: Split) -> list[Recording]:
        return [
            Recording(path, label)
            for label, folder in enumerate(self._folders(split))
            for path in self._of_split(sorted(recording_files(folder), key=_natural), split)
        ]

    def class_names(self) -> list[str]:
        return [folder.name for folder in self._folders("test")]

    def _folders(self, split: Split) -> list[Path]:
        below = self.folder / (self.splits[split] if self.splits else "")
        return require_classes(self.published, below, self.num_classes, SUFFIXES)

    def _of_split(self, files: list[Path], split: Split) -> list[Path]:
        if self.splits:
            return files
        trained = len(files) - max(1, len(files) // _TESTED_SHARE)
        return files[:trained] if split == "train" else files[trained:]


def recording_files(folder: Path) -> list[Path]:
    """Return the recordings in a folder, hidden files aside."""
    shown = (path for path in folder.iterdir() if path.name[0] != ".")
    return [path for path in shown if path.suffix.lower() in SUFFIXES]


def _natural(path: Path) -> list[tuple[str, int]]:
    """A key by which cat_2 comes before cat_10."""
    parts = re.findall(r"([^0-9]*)([0-9]*)", path.name)
    return [(text, int(number or -1)) for text, number in parts]

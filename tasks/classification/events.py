"""Classification of what event cameras recorded."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import Dataset, Subset
from torchvision.transforms import v2

from benchmark.registry import unknown_name
from benchmark.task import MissingDataError
from tasks.classification.data import DataModule, require_classes
from tasks.datasets import DatasetError
from tasks.datasets.events import frames_by_count, frames_by_time, read_events, voxel_grid
from tasks.datasets.events.cache import cached_frames
from tasks.datasets.published import (
    CIFAR10DVS,
    DVS128GESTURE,
    DVS128GESTURE_CLIPS,
    HARDVS,
    NCALTECH101,
    NMNIST,
    Published,
    evenly_spread,
)

Split = Literal["train", "test"]

_FRAMES = {"count": frames_by_count, "time": frames_by_time, "voxel": voxel_grid}
_TESTED_SHARE = 10  # of data sets without a split of their own, one in so many is tested


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
        pixels: at most so many in each direction.
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
        frames: by what events are divided into time steps: count, time or voxel.
        time_steps: T.
        image_size: pixels each side that frames are brought to, by the mean over areas.
        transform: what is done to frames `(T, 2, image_size, image_size)`.

    Raises:
        UnknownNameError: there is no such way to make frames.
    """

    def __init__(
        self,
        recordings: list[Recording],
        camera: tuple[int, int],
        frames: str,
        time_steps: int,
        image_size: int,
        transform: torch.nn.Module | None = None,
    ) -> None:
        if frames not in _FRAMES:
            raise unknown_name("frames", frames, _FRAMES)
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
        }
        frames = cached_frames(recording.path, described, lambda: self._make(recording))
        return (frames if self.transform is None else self.transform(frames)), recording.label

    def _make(self, recording: Recording) -> Tensor:
        path, _, window = recording
        events = read_events(path)
        if window is not None:
            events = events[(events.t >= window[0]) & (events.t < window[1])]
        try:
            counts = _FRAMES[self.frames](events, self.time_steps, self.camera)
        except DatasetError as error:
            raise DatasetError(f"{path}: {error}") from error
        return F.interpolate(counts, (self.image_size, self.image_size), mode="area").log1p()


class EventsDataModule(DataModule):
    """Recordings of a data set, which a subclass names and finds.

    Frames are made of T parts of each recording and kept on disk.

    Args:
        num_classes: how many classes there must be.
        time_steps: T, as the model's.
        frames: by what a recording is divided into time steps: count (as many events in each),
            time (as long), or voxel (events shared out between moments).
        image_size: pixels each side.
        batch_size: recordings a step.
        num_workers: loader processes.
        augment: of training frames: `roll`, pixels; `flip`, the probability; `cutout`, the
            probability.
        limit: use only so many recordings of each split, spread evenly over the classes.
    """

    published: Published
    camera: tuple[int, int]
    time_steps: int
    train: Subset
    test: Subset

    def __init__(
        self,
        num_classes: int,
        time_steps: int = 4,
        frames: str = "count",
        image_size: int = 32,
        batch_size: int = 32,
        num_workers: int = 0,
        augment: Mapping[str, Any] | None = None,
        limit: int | None = None,
    ) -> None:
        super().__init__(num_classes, image_size, batch_size, num_workers, limit)
        self.time_steps = time_steps
        self.frames = frames
        self.augment = dict(augment or {})
        if unknown := self.augment.keys() - {"roll", "flip", "cutout"}:
            raise unknown_name("data.augment", min(unknown), ("roll", "flip", "cutout"))

    def example(self) -> Tensor:
        """Frames of noise, `(1, T, 2, H, W)`."""
        return torch.randn(1, self.time_steps, 2, self.image_size, self.image_size).abs()

    def recordings(self, split: Split) -> list[Recording]:
        """The samples of a split, in an order of their own.

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
        for split in ("train", "test") if training else ("test",):
            self.recordings(split)

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
        if self.augment.get("roll"):
            steps.append(RandomRoll(self.augment["roll"]))
        if self.augment.get("flip"):
            steps.append(v2.RandomHorizontalFlip(self.augment["flip"]))
        if self.augment.get("cutout"):
            steps.append(v2.RandomErasing(self.augment["cutout"]))
        return torch.nn.Sequential(*steps) if steps else None

    def _frames(self, split: Split, transform: Any = None) -> Subset:
        data = EventFrames(
            self.recordings(split),
            self.camera,
            self.frames,
            self.time_steps,
            self.image_size,
            transform,
        )
        return Subset(data, evenly_spread(len(data), self.limit))


class _ClassFolders(EventsDataModule):
    """A folder a class, below a folder a split where the data set has splits.

    Of one that has none, the last tenth of each class is tested, in the order of the numbers in
    the names of its files.
    """

    splits: Mapping[Split, str] | None = None

    def recordings(self, split: Split) -> list[Recording]:
        return [
            Recording(path, label)
            for label, folder in enumerate(self._folders(split))
            for path in self._of_split(sorted(_files(folder), key=_natural), split)
        ]

    def class_names(self) -> list[str]:
        return [folder.name for folder in self._folders("test")]

    def _folders(self, split: Split) -> list[Path]:
        below = self.published.folder / (self.splits[split] if self.splits else "")
        return require_classes(self.published, below, self.num_classes)

    def _of_split(self, files: list[Path], split: Split) -> list[Path]:
        if self.splits:
            return files
        trained = len(files) - max(1, len(files) // _TESTED_SHARE)
        return files[:trained] if split == "train" else files[trained:]


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file() and path.name[0] != "."]


def _natural(path: Path) -> list[tuple[str, int]]:
    """A key by which cat_2 comes before cat_10."""
    parts = re.findall(r"([^0-9]*)([0-9]*)", path.name)
    return [(text, int(number or -1)) for text, number in parts]


class NMNISTDataModule(_ClassFolders):
    """N-MNIST: digits before a moving camera, `nmnist/{Train,Test}/<digit>/*.bin`.

    Orchard et al., Frontiers in Neuroscience 9, 2015. Arguments as in `EventsDataModule`.
    """

    name = "nmnist"
    published = NMNIST
    camera = (34, 34)
    splits = {"train": "Train", "test": "Test"}

    def __init__(self, num_classes: int = 10, **options: Any) -> None:
        super().__init__(num_classes, **options)


class NCaltech101DataModule(_ClassFolders):
    """N-Caltech101: objects before a moving camera, `ncaltech101/<class>/*.bin`.

    Orchard et al., Frontiers in Neuroscience 9, 2015. There is no split of its own; the last tenth
    of each class is tested. Arguments as in `EventsDataModule`.
    """

    name = "ncaltech101"
    published = NCALTECH101
    camera = (180, 240)

    def __init__(self, num_classes: int = 101, **options: Any) -> None:
        super().__init__(num_classes, **options)


class CIFAR10DVSDataModule(_ClassFolders):
    """CIFAR10-DVS: moving pictures of CIFAR-10 before a DVS128, `cifar10dvs/<class>/*.aedat`.

    Li et al., Frontiers in Neuroscience 11, 2017. There is no split of its own; the last 100 of the
    1,000 recordings of each class are tested. Arguments as in `EventsDataModule`.
    """

    name = "cifar10dvs"
    published = CIFAR10DVS
    camera = (128, 128)

    def __init__(self, num_classes: int = 10, **options: Any) -> None:
        super().__init__(num_classes, **options)


class DVS128GestureDataModule(EventsDataModule):
    """DVS128 Gesture: 11 gestures of 29 people, those of the last six tested.

    Amir et al., CVPR 2017. `DvsGesture/trials_to_{train,test}.txt` name recordings, and beside each
    `<recording>.aedat` lies a `<recording>_labels.csv` of the moments at which gestures begin and
    end: 1,176 to train on and 288 to test on. Arguments as in `EventsDataModule`.
    """

    name = "dvs128gesture"
    published = DVS128GESTURE
    camera = (128, 128)

    def __init__(self, num_classes: int = 11, **options: Any) -> None:
        super().__init__(num_classes, **options)

    def recordings(self, split: Split) -> list[Recording]:
        trials = self.published.folder / f"trials_to_{split}.txt"
        self.published.require(trials)
        paths = [self.published.folder / name for name in trials.read_text().split()]
        labels = [path.with_name(f"{path.stem}_labels.csv") for path in paths]
        self.published.require(*paths, *labels)
        return [
            Recording(path, *trial)
            for path, file in zip(paths, labels, strict=True)
            for trial in self._trials(file)
        ]

    def class_names(self) -> list[str]:
        return [str(number) for number in range(1, self.num_classes + 1)]

    def _trials(self, file: Path) -> list[tuple[int, tuple[int, int]]]:
        """What a file of labels says: classes from 0 on, and their windows."""
        trials = []
        with file.open(newline="") as lines:
            for number, row in enumerate(csv.reader(lines), 1):
                if number == 1 or not row:  # the names of the columns
                    continue
                try:
                    label, start, end = map(int, row)
                except ValueError as error:
                    raise DatasetError(
                        f"{file}, line {number}: {','.join(row)!r}; expected three whole numbers: "
                        "class, start and end in microseconds"
                    ) from error
                if not 1 <= label <= self.num_classes:
                    raise DatasetError(
                        f"{file}, line {number}: class {label}; expected 1 to {self.num_classes} "
                        "(data.num_classes)"
                    )
                trials.append((label - 1, (start, end)))
        return trials


class DVS128GestureClipsDataModule(EventsDataModule):
    """Ten clips of DVS128 Gesture, a class each, `dvs128gesture10/bs2/<number>_<class>.bs2`.

    A clip has one performer: windows from its beginning are trained on, and later ones tested. That
    shows that a model and the 128x128 path learn, and nothing about other people.

    Args:
        num_classes: how many clips there must be.
        window: milliseconds of a sample.
        stride: milliseconds from the beginning of a sample to that of the next.
        tested_from: milliseconds from which on windows are tested; those trained on end before.
        length: milliseconds of a clip.
        **options: as in `EventsDataModule`.
    """

    name = "dvs128gesture_clips"
    published = DVS128GESTURE_CLIPS
    camera = (128, 128)

    def __init__(
        self,
        num_classes: int = 10,
        window: int = 200,
        stride: int = 100,
        tested_from: int = 950,
        length: int = 1450,
        **options: Any,
    ) -> None:
        super().__init__(num_classes, **options)
        self.window = window
        self.stride = stride
        self.tested_from = tested_from
        self.length = length

    def recordings(self, split: Split) -> list[Recording]:
        first, end = (0, self.tested_from) if split == "train" else (self.tested_from, self.length)
        starts = range(first, end - self.window + 1, self.stride)
        return [
            Recording(path, label, (1000 * start, 1000 * (start + self.window)))
            for label, path in enumerate(self._clips())
            for start in starts
        ]

    def class_names(self) -> list[str]:
        return [path.stem.partition("_")[2] for path in self._clips()]

    def _clips(self) -> list[Path]:
        folder = self.published.folder / "bs2"
        self.published.require(folder)
        clips = sorted(_files(folder))
        if len(clips) != self.num_classes:
            raise DatasetError(
                f"{folder.absolute()} holds {len(clips)} clips; expected {self.num_classes} "
                f"(data.num_classes); {self.published.remedy}"
            )
        return clips


class HARDVSDataModule(EventsDataModule):
    """HAR-DVS: 300 actions before a DAVIS346.

    Wang et al., AAAI 2024, arXiv 2211.09648. Lines of `hardvs/{train,test}_label.txt` begin with a
    recording and end with its class, from 0 on; beside them lie the folders of
    `hardvs/<action>/<recording>.aedat4`, or `.npz` of the compact release. Arguments as in
    `EventsDataModule`.
    """

    name = "hardvs"
    published = HARDVS
    camera = (260, 346)

    def __init__(self, num_classes: int = 300, **options: Any) -> None:
        super().__init__(num_classes, **options)

    def recordings(self, split: Split) -> list[Recording]:
        file = self.published.folder / f"{split}_label.txt"
        self.published.require(file)
        found = []
        for number, line in enumerate(file.read_text().splitlines(), 1):
            if not line.strip():
                continue
            name, *_, label = line.split() if len(line.split()) > 1 else ("", "")
            if not name or not label.isdecimal() or not int(label) < self.num_classes:
                raise DatasetError(
                    f"{file}, line {number}: {line.strip()!r}; expected a recording and its class, "
                    f"0 to {self.num_classes - 1} (data.num_classes)"
                )
            path = self.published.folder / f"{name}.aedat4"
            compact = path.with_suffix(".npz")
            found.append(Recording(compact if compact.exists() else path, int(label)))
        self.published.require(*(one.path for one in found))
        return found

    def class_names(self) -> list[str]:
        return [f"action_{number:03}" for number in range(1, self.num_classes + 1)]

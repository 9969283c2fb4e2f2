"""The data sets of event cameras: how each names its recordings, classes and splits."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spikebench_tasks.classification.data import require_classes
from spikebench_tasks.classification.events import EventsDataModule, Recording
from spikebench_tasks.datasets import DatasetError, Split
from spikebench_tasks.datasets.events.readers import SUFFIXES
from spikebench_tasks.datasets.published import (
    CIFAR10DVS,
    DVS128GESTURE,
    DVS128GESTURE_CLIPS,
    HARDVS,
    NCALTECH101,
    NMNIST,
)

_TESTED_SHARE = 10  # of data sets without a split of their own, one in so many is tested


class _ClassFolders(EventsDataModule):
    """A folder a class, below a folder a split where the data set has splits.

    Of one that has none, the last tenth of each class is tested, in the order of the numbers in
    the names of its files.
    """

    splits: Mapping[Split, str] | None = None

    def require(self, training: bool) -> None:
        super().require(training)
        if training and self.splits:
            train, test = (self.published.folder / self.splits[each] for each in ("train", "test"))
            require_classes(self.published, train, self.num_classes, SUFFIXES, like=test)

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
        return require_classes(self.published, below, self.num_classes, SUFFIXES)

    def _of_split(self, files: list[Path], split: Split) -> list[Path]:
        if self.splits:
            return files
        trained = len(files) - max(1, len(files) // _TESTED_SHARE)
        return files[:trained] if split == "train" else files[trained:]


def _files(folder: Path) -> list[Path]:
    shown = (path for path in folder.iterdir() if path.name[0] != ".")
    return [path for path in shown if path.suffix.lower() in SUFFIXES]


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
    num_classes = 10


class NCaltech101DataModule(_ClassFolders):
    """N-Caltech101: objects before a moving camera, `ncaltech101/<class>/*.bin`.

    Orchard et al., Frontiers in Neuroscience 9, 2015. There is no split of its own; the last tenth
    of each class is tested. Arguments as in `EventsDataModule`.
    """

    name = "ncaltech101"
    published = NCALTECH101
    camera = (180, 240)
    num_classes = 101


class CIFAR10DVSDataModule(_ClassFolders):
    """CIFAR10-DVS: moving pictures of CIFAR-10 before a DVS128, `cifar10dvs/<class>/*.aedat`.

    Li et al., Frontiers in Neuroscience 11, 2017. There is no split of its own; the last 100 of the
    1,000 recordings of each class are tested. Arguments as in `EventsDataModule`.
    """

    name = "cifar10dvs"
    published = CIFAR10DVS
    camera = (128, 128)
    num_classes = 10


class DVS128GestureDataModule(EventsDataModule):
    """DVS128 Gesture: 11 gestures of 29 people, those of the last six tested.

    Amir et al., CVPR 2017. `DvsGesture/trials_to_{train,test}.txt` name recordings, and beside each
    `<recording>.aedat` lies a `<recording>_labels.csv` of the moments at which gestures begin and
    end: 1,176 to train on and 288 to test on. Arguments as in `EventsDataModule`.
    """

    name = "dvs128gesture"
    published = DVS128GESTURE
    camera = (128, 128)
    num_classes = 11

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
        window: milliseconds of a sample.
        stride: milliseconds from the beginning of a sample to that of the next.
        tested_from: milliseconds from which on windows are tested; those trained on end before.
        length: milliseconds of a clip.
        **options: as in `EventsDataModule`.
    """

    name = "dvs128gesture_clips"
    published = DVS128GESTURE_CLIPS
    camera = (128, 128)
    num_classes = 10

    def __init__(
        self,
        window: int = 200,
        stride: int = 100,
        tested_from: int = 950,
        length: int = 1450,
        **options: Any,
    ) -> None:
        super().__init__(**options)
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
    num_classes = 300

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

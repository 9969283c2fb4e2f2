"""Classification of what event cameras recorded: folders of files, a folder a class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import Dataset, Subset
from torchvision.transforms import v2

from benchmark.registry import unknown_name
from tasks.classification.data import DataModule, require_classes
from tasks.datasets import DatasetError
from tasks.datasets.events import frames_by_count, frames_by_time, read_events, voxel_grid
from tasks.datasets.events.cache import cached_frames
from tasks.datasets.published import NMNIST, Published, evenly_spread

_FRAMES = {"count": frames_by_count, "time": frames_by_time, "voxel": voxel_grid}


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
        files: the recordings, each with its class.
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
        files: list[tuple[Path, int]],
        camera: tuple[int, int],
        frames: str,
        time_steps: int,
        image_size: int,
        transform: torch.nn.Module | None = None,
    ) -> None:
        if frames not in _FRAMES:
            raise unknown_name("frames", frames, _FRAMES)
        self.files = files
        self.camera = camera
        self.frames = frames
        self.time_steps = time_steps
        self.image_size = image_size
        self.transform = transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Frames `(T, 2, image_size, image_size)` and the class.

        Raises:
            DatasetError: the file is garbled or of another camera; the message names it.
        """
        path, label = self.files[index]
        described = {
            "camera": self.camera,
            "frames": self.frames,
            "time_steps": self.time_steps,
            "image_size": self.image_size,
        }
        frames = cached_frames(path, described, lambda: self._make(path))
        return (frames if self.transform is None else self.transform(frames)), label

    def _make(self, path: Path) -> Tensor:
        events = read_events(path)
        try:
            counts = _FRAMES[self.frames](events, self.time_steps, self.camera)
        except DatasetError as error:
            raise DatasetError(f"{path}: {error}") from error
        return F.interpolate(counts, (self.image_size, self.image_size), mode="area").log1p()


class EventsDataModule(DataModule):
    """Recordings in folders, a folder a class, below a folder a split.

    A subclass names the data set. Frames are made by T parts of each recording and kept on disk.

    Args:
        num_classes: how many class folders there must be.
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
    splits: Mapping[Literal["train", "test"], str]
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

    def require(self, training: bool) -> None:
        """Look at the folders of the classes.

        Raises:
            MissingDataError: a split is not there, or is empty.
            DatasetError: there are more or fewer classes than `num_classes`, or one is empty.
        """
        for split in ("train", "test") if training else ("test",):
            self._files(split)

    def setup(self, stage: str | None = None) -> None:
        if stage in (None, "fit"):
            self.train = self._recordings("train", self._augmentation())
        self.test = self._recordings("test")
        self.classes = list(dict.fromkeys(path.parent.name for path, _ in self._files("test")))

    @property
    def train_samples(self) -> int | None:
        """Recordings to train on; None where there are none."""
        folder = self.published.folder / self.splits["train"]
        return len(self._recordings("train")) if folder.is_dir() else None

    def _augmentation(self) -> torch.nn.Module | None:
        steps: list[torch.nn.Module] = []
        if self.augment.get("roll"):
            steps.append(RandomRoll(self.augment["roll"]))
        if self.augment.get("flip"):
            steps.append(v2.RandomHorizontalFlip(self.augment["flip"]))
        if self.augment.get("cutout"):
            steps.append(v2.RandomErasing(self.augment["cutout"]))
        return torch.nn.Sequential(*steps) if steps else None

    def _recordings(self, split: Literal["train", "test"], transform: Any = None) -> Subset:
        data = EventFrames(
            self._files(split),
            self.camera,
            self.frames,
            self.time_steps,
            self.image_size,
            transform,
        )
        return Subset(data, evenly_spread(len(data), self.limit))

    def _files(self, split: Literal["train", "test"]) -> list[tuple[Path, int]]:
        folder = self.published.folder / self.splits[split]
        classes = require_classes(self.published, folder, self.num_classes)
        return [
            (path, label)
            for label, of_class in enumerate(classes)
            for path in sorted(of_class.iterdir())
            if path.is_file() and not path.name.startswith(".")
        ]


class NMNISTDataModule(EventsDataModule):
    """N-MNIST: digits before a moving camera, `nmnist/{Train,Test}/<digit>/*.bin`.

    Orchard et al., Frontiers in Neuroscience 9, 2015. Arguments as in `EventsDataModule`.
    """

    name = "nmnist"
    published = NMNIST
    camera = (34, 34)
    splits = {"train": "Train", "test": "Test"}

    def __init__(self, num_classes: int = 10, **options: Any) -> None:
        super().__init__(num_classes, **options)

"""Event data sets, tiny and in the layout of the published ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.tasks.datasets.events.files import aedat2, aedat31, atis, some_events

CLASSES = 10


def make_events(root: Path, name: str, each: int = 2) -> Path:
    """Write the data set that a data module names, with so many recordings a class and split.

    Returns:
        Its folder.

    Raises:
        KeyError: none is known by that name.
    """
    return EVENT_SETS[name](root, each)


def nmnist(root: Path, each: int) -> Path:
    for split in ("Train", "Test"):
        for digit in range(CLASSES):
            for index in range(each):
                _write(
                    root / "nmnist" / split / str(digit) / f"{index:05}.bin",
                    atis(some_events(40 + 10 * digit + index, side=34)),
                )
    return root / "nmnist"


def ncaltech101(root: Path, each: int) -> Path:
    for number in range(CLASSES):
        for index in range(1, 2 * each + 1):
            path = root / "ncaltech101" / f"class{number}" / f"image_{index:04}.bin"
            _write(path, atis(some_events(60, side=180)))
    return root / "ncaltech101"


def cifar10dvs(root: Path, each: int) -> Path:
    for number in range(CLASSES):
        for index in range(2 * each):
            path = root / "cifar10dvs" / f"class{number}" / f"cifar10_class{number}_{index}.aedat"
            _write(path, aedat2(some_events(60)))
    return root / "cifar10dvs"


def dvs128gesture(root: Path, each: int) -> Path:
    folder = root / "DvsGesture"
    for split in ("train", "test"):
        names = [f"user{split}{number}_led" for number in range(each)]
        _write(folder / f"trials_to_{split}.txt", "".join(f"{one}.aedat\n" for one in names))
        for name in names:
            _write(folder / f"{name}.aedat", aedat31(some_events(200)))
            rows = [f"{n + 1},{100_000 * n},{100_000 * (n + 1)}\n" for n in range(CLASSES)]
            _write(
                folder / f"{name}_labels.csv", "class,startTime_usec,endTime_usec\n" + "".join(rows)
            )
    return folder


def dvs128gesture_clips(root: Path, each: int) -> Path:
    for number in range(1, CLASSES + 1):
        path = root / "dvs128gesture10" / "bs2" / f"{number:02}_gesture{number}.bs2"
        _write(path, atis(some_events(300)))
    return root / "dvs128gesture10"


def hardvs(root: Path, each: int) -> Path:
    """The recordings are empty: only the package `aedat` knows the format."""
    for split in ("train", "test"):
        lines = []
        for number in range(CLASSES):
            for index in range(each):
                name = f"action_{number + 1:03}/dvSave-{split}{index}"
                _write(root / "hardvs" / f"{name}.aedat4", "")
                lines.append(f"{name} 8 {number}\n")
        _write(root / "hardvs" / f"{split}_label.txt", "".join(lines))
    return root / "hardvs"


def _write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


EVENT_SETS: dict[str, Callable[[Path, int], Path]] = {
    make.__name__: make
    for make in (nmnist, ncaltech101, cifar10dvs, dvs128gesture, dvs128gesture_clips, hardvs)
}

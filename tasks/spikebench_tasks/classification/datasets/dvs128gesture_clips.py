"""Ten clips of DVS128 Gesture.

Files: `dvs128gesture10/bs2/*.bs2`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spikebench.registry import DATASETS
from spikebench_tasks.classification.events import EventsDataModule, Recording, recording_files
from spikebench_tasks.datasets import DatasetError, Split
from spikebench_tasks.datasets.published import Published


@DATASETS.register(name="dvs128gesture_clips")
class DVS128GestureClipsDataModule(EventsDataModule):
    """Ten clips of DVS128 Gesture, one per class, `dvs128gesture10/bs2/<number>_<class>.bs2`.

    A clip has one performer: windows from its beginning are trained on, and later ones tested. That
    shows that a model and the 128x128 path learn, and nothing about other people.

    Args:
        window: milliseconds of a sample.
        stride: milliseconds from the beginning of a sample to that of the next.
        tested_from: milliseconds from which on windows are tested; those trained on end before.
        length: milliseconds of a clip.
        **options: as in `EventsDataModule`.
    """

    published = Published(
        "Clips of DVS128 Gesture",
        "dvs128gesture10",
        "get test/test_files/binarySpikeTestFiles/{1..10}.bs2 from "
        "https://github.com/bamsumit/slayerPytorch and put them into dvs128gesture10/bs2 as "
        "01_<class>.bs2 to 10_<class>.bs2,",
    )
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
        folder = self.folder / "bs2"
        self.published.require(folder)
        clips = sorted(recording_files(folder))
        if len(clips) != self.num_classes:
            raise DatasetError(
                f"{folder.absolute()} holds {len(clips)} clips; expected {self.num_classes} "
                f"(data.num_classes); {self.published.remedy}"
            )
        return clips

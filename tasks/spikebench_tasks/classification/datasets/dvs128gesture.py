"""DVS128 Gesture (Amir et al., CVPR 2017).

Files: `DvsGesture/trials_to_{train,test}.txt`, `DvsGesture/*.aedat`, `DvsGesture/*_labels.csv`.
"""

from __future__ import annotations

import csv
from pathlib import Path

from spikebench.registry import DATASETS
from spikebench_tasks.classification.events import EventsDataModule, Recording
from spikebench_tasks.datasets import DatasetError, Split
from spikebench_tasks.datasets.published import Published


@DATASETS.register(name="dvs128gesture")
class DVS128GestureDataModule(EventsDataModule):
    """DVS128 Gesture: 11 gestures of 29 people, those of the last six tested.

    Amir et al., CVPR 2017. `DvsGesture/trials_to_{train,test}.txt` name recordings, and beside each
    `<recording>.aedat` lies a `<recording>_labels.csv` of the moments at which gestures begin and
    end: 1,176 to train on and 288 to test on. Arguments as in `EventsDataModule`.
    """

    published = Published(
        "DVS128 Gesture",
        "DvsGesture",
        "get DvsGesture.tar.gz from https://research.ibm.com/interactive/dvsgesture and unpack it",
    )
    camera = (128, 128)
    num_classes = 11

    def recordings(self, split: Split) -> list[Recording]:
        trials = self.folder / f"trials_to_{split}.txt"
        self.published.require(trials)
        paths = [self.folder / name for name in trials.read_text().split()]
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

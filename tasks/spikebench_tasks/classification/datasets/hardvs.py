"""HAR-DVS (Wang et al., AAAI 2024, arXiv 2211.09648).

Files: `hardvs/{train,test}_label.txt`, `hardvs/<action>/*.aedat4`.
"""

from __future__ import annotations

from spikebench.registry import DATASETS
from spikebench_tasks.classification.events import EventsDataModule, Recording
from spikebench_tasks.datasets import DatasetError, Split
from spikebench_tasks.datasets.published import Published


@DATASETS.register(name="hardvs")
class HARDVSDataModule(EventsDataModule):
    """HAR-DVS: 300 actions before a DAVIS346.

    Wang et al., AAAI 2024, arXiv 2211.09648. Lines of `hardvs/{train,test}_label.txt` begin with a
    recording and end with its class, from 0 on; beside them lie the folders of
    `hardvs/<action>/<recording>.aedat4`, or `.npz` of the compact release. Arguments as in
    `EventsDataModule`.
    """

    published = Published(
        "HAR-DVS",
        "hardvs",
        "get recordings and labels from https://github.com/Event-AHU/HARDVS and unpack them into "
        "hardvs, its train_label.txt and test_label.txt beside the folders of actions,",
    )
    camera = (260, 346)
    num_classes = 300

    def recordings(self, split: Split) -> list[Recording]:
        file = self.folder / f"{split}_label.txt"
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
            path = self.folder / f"{name}.aedat4"
            compact = path.with_suffix(".npz")
            found.append(Recording(compact if compact.exists() else path, int(label)))
        self.published.require(*(one.path for one in found))
        return found

    def class_names(self) -> list[str]:
        return [f"action_{number:03}" for number in range(1, self.num_classes + 1)]

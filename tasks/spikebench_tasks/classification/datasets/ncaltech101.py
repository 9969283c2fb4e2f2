"""N-Caltech101 (Orchard et al., Frontiers in Neuroscience 9, 2015).

Files: `ncaltech101/<class>/*.bin`.
"""

from __future__ import annotations

from spikebench.registry import DATASETS
from spikebench_tasks.classification.events import ClassFoldersDataModule
from spikebench_tasks.datasets.published import Published


@DATASETS.register(name="ncaltech101")
class NCaltech101DataModule(ClassFoldersDataModule):
    """N-Caltech101: objects before a moving camera, `ncaltech101/<class>/*.bin`.

    Orchard et al., Frontiers in Neuroscience 9, 2015. There is no split of its own; the last tenth
    of each class is tested. Arguments as in `EventsDataModule`.
    """

    published = Published(
        "N-Caltech101",
        "ncaltech101",
        "get Caltech101.zip of https://www.garrickorchard.com/datasets/n-caltech101 and unpack its "
        "folders of classes into ncaltech101",
    )
    camera = (180, 240)
    num_classes = 101

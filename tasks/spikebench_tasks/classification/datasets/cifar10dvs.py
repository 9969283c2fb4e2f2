"""CIFAR10-DVS (Li et al., Frontiers in Neuroscience 11, 2017).

Files: `cifar10dvs/<class>/*.aedat`.
"""

from __future__ import annotations

from spikebench.registry import DATASETS
from spikebench_tasks.classification.events import ClassFoldersDataModule
from spikebench_tasks.datasets.published import Published


@DATASETS.register(name="cifar10dvs")
class CIFAR10DVSDataModule(ClassFoldersDataModule):
    """CIFAR10-DVS: moving pictures of CIFAR-10 before a DVS128, `cifar10dvs/<class>/*.aedat`.

    Li et al., Frontiers in Neuroscience 11, 2017. There is no split of its own; the last 100 of the
    1,000 recordings of each class are tested. Arguments as in `EventsDataModule`.
    """

    published = Published(
        "CIFAR10-DVS",
        "cifar10dvs",
        "get the archives of ten classes from https://figshare.com/articles/dataset/CIFAR10-DVS_New/"
        "4724671 and unpack them into cifar10dvs, one folder per class,",
    )
    camera = (128, 128)
    num_classes = 10

"""N-MNIST (Orchard et al., Frontiers in Neuroscience 9, 2015).

Files: `nmnist/{Train,Test}/<digit>/*.bin`.
"""

from __future__ import annotations

from spikebench.registry import DATASETS
from spikebench_tasks.classification.events import ClassFoldersDataModule
from spikebench_tasks.datasets.published import Published


@DATASETS.register(name="nmnist")
class NMNISTDataModule(ClassFoldersDataModule):
    """N-MNIST: digits before a moving camera, `nmnist/{Train,Test}/<digit>/*.bin`.

    Orchard et al., Frontiers in Neuroscience 9, 2015. Arguments as in `EventsDataModule`.
    """

    published = Published(
        "N-MNIST",
        "nmnist",
        "get Train.zip and Test.zip from https://www.garrickorchard.com/datasets/n-mnist and "
        "unpack them into nmnist",
    )
    camera = (34, 34)
    splits = {"train": "Train", "test": "Test"}
    num_classes = 10

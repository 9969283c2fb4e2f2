"""CIFAR-10 and CIFAR-100 (Krizhevsky, Learning Multiple Layers of Features, 2009).

Files: `cifar10/cifar-10-batches-py/{data_batch_{1..5},test_batch}` or
`cifar10/{train,test}/<class>/*`; `cifar100/cifar-100-python/{train,test}` or
`cifar100/{train,test}/<class>/*`
"""

from __future__ import annotations

from torchvision import datasets
from torchvision.datasets.utils import check_integrity

from spikebench.registry import DATASETS
from spikebench_tasks.classification.folders import require_classes
from spikebench_tasks.classification.small_images import (
    SmallImages,
    SmallImagesDataModule,
    in_folders,
)
from spikebench_tasks.datasets import DatasetError, Split
from spikebench_tasks.datasets.published import Published


class CIFARDataModule(SmallImagesDataModule):
    """The official files of a CIFAR where they are there, else folders `train` and `test`.

    Folders hold one folder per class. Arguments as in `SmallImagesDataModule`.
    """

    side = 32
    official: type[datasets.CIFAR10]

    @property
    def is_official(self) -> bool:
        """Whether the official files are there."""
        return (self.folder / self.official.base_folder).is_dir()

    @property
    def title(self) -> str:
        """Images in folders may be others than the official ones, such as compressed ones."""
        return self.name if self.is_official else f"{self.name}_folders"

    def require(self, training: bool) -> None:
        """Look at the official files, or at the folders of the classes.

        Raises:
            MissingDataError: a file or folder is not there, or a folder is empty.
            DatasetError: an official file is not what it should be, or there are more or fewer
                class folders than `num_classes`.
        """
        splits: list[Split] = ["train", "test"] if training else ["test"]
        if not self.is_official:
            folders = [self.folder / split for split in splits]
            self.published.require(*folders)
            for each in reversed(folders):
                require_classes(self.published, each, self.num_classes, like=folders[-1])
            return
        folder = self.folder / self.official.base_folder
        named = {"train": self.official.train_list, "test": self.official.test_list}
        meta = (self.official.meta["filename"], self.official.meta["md5"])
        for name, md5 in [meta, *(each for split in splits for each in named[split])]:
            self.published.require(folder / name)
            if not check_integrity(str(folder / name), md5):
                raise DatasetError(
                    f"{(folder / name).absolute()} is not the official file, whose MD5 is {md5}; "
                    f"{self.published.remedy}"
                )

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        for images in (self.train, self.test) if stage in (None, "fit") else (self.test,):
            images.hold()

    def images(self, split: Split) -> SmallImages:
        folder = self.folder
        if not self.is_official:
            return in_folders(folder / split, self.side)
        official = self.official(str(folder), train=split == "train")
        return SmallImages(
            zip(official.data, official.targets, strict=True), official.classes, self.side
        )


@DATASETS.register(name="cifar10")
class CIFAR10DataModule(CIFARDataModule):
    """CIFAR-10 (Krizhevsky, 2009). Arguments as in `SmallImagesDataModule`."""

    published = Published(
        "CIFAR-10",
        "cifar10",
        "unpack https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz into cifar10",
    )
    official = datasets.CIFAR10
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)
    num_classes = 10


@DATASETS.register(name="cifar100")
class CIFAR100DataModule(CIFARDataModule):
    """CIFAR-100 (Krizhevsky, 2009). Arguments as in `SmallImagesDataModule`."""

    published = Published(
        "CIFAR-100",
        "cifar100",
        "unpack https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz into cifar100",
    )
    official = datasets.CIFAR100
    mean = (0.5071, 0.4865, 0.4409)
    std = (0.2673, 0.2564, 0.2762)
    num_classes = 100

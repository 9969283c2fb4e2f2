"""Tiny-ImageNet (Le and Yang, 2015).

Files: `tiny-imagenet-200/{train/<WordNet id>/images,val/images}/*.JPEG`.
"""

from __future__ import annotations

from pathlib import Path

from spikebench.registry import DATASETS
from spikebench_tasks.classification.folders import require_classes
from spikebench_tasks.classification.small_images import (
    SmallImages,
    SmallImagesDataModule,
    in_folders,
)
from spikebench_tasks.datasets import DatasetError, Split
from spikebench_tasks.datasets.published import Published


@DATASETS.register(name="tiny_imagenet")
class TinyImageNetDataModule(SmallImagesDataModule):
    """Tiny-ImageNet: 200 classes of ImageNet at 64x64, 500 images each, and 50 to test on.

    From `tiny-imagenet-200`, as it is unpacked: `val/val_annotations.txt` names the classes of what
    is tested. Arguments as in `SmallImagesDataModule`.
    """

    test_split = "val"
    published = Published(
        "Tiny-ImageNet",
        "tiny-imagenet-200",
        "unpack http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    )
    side = 64
    mean = (0.485, 0.456, 0.406)  # of ImageNet
    std = (0.229, 0.224, 0.225)
    num_classes = 200

    def require(self, training: bool) -> None:
        """Look at the folders of the classes, and at what names those of the tested images.

        Raises:
            MissingDataError: a file or folder is not there, or is empty.
            DatasetError: there are more or fewer classes than `num_classes`, or the file of
                annotations names others.
        """
        self._classes()
        self.published.require(self.folder / "val" / "images")
        self._annotated()

    def images(self, split: Split) -> SmallImages:
        if split == "train":
            return in_folders(self.folder / "train", self.side)
        return SmallImages(self._annotated(), self._classes(), self.side)

    def _classes(self) -> list[str]:
        folder = self.folder / "train"
        return [each.name for each in require_classes(self.published, folder, self.num_classes)]

    def _annotated(self) -> list[tuple[Path, int]]:
        """The tested images, each with its class."""
        file = self.folder / "val" / "val_annotations.txt"
        self.published.require(file)
        labels = {name: label for label, name in enumerate(self._classes())}
        found = []
        for number, line in enumerate(file.read_text().splitlines(), 1):
            image, _, rest = line.partition("\t")
            wanted = rest.partition("\t")[0]
            if wanted not in labels:
                raise DatasetError(
                    f"{file}, line {number}: class {wanted!r}; expected one of the "
                    f"{len(labels)} folders of {self.folder / 'train'}"
                )
            found.append((file.with_name("images") / image, labels[wanted]))
        self.published.require(*(path for path, _ in found))
        return found

"""ImageNet-1K (Russakovsky et al., IJCV 115, 2015, arXiv 1409.0575).

Files: `imagenet/{train,val}/<WordNet id>/*.JPEG`.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch.utils.data import Subset
from torchvision.datasets import ImageFolder

from spikebench.images import imagenet_transform
from spikebench.registry import DATASETS
from spikebench_tasks.classification.datamodule import DataModule
from spikebench_tasks.classification.folders import read_image, require_classes
from spikebench_tasks.classification.options import CropAugmentation, typed
from spikebench_tasks.datasets.published import Published, evenly_spread


@DATASETS.register(name="imagenet")
class ImageNetDataModule(DataModule):
    """ImageNet-1K, from `imagenet/{train,val}` below the data root, one folder per class.

    Test images are resized with bicubic interpolation until their shorter side is 8/7 of
    `image_size` (256 for 224), their centre is cropped, and they are normalised by ImageNet's mean
    and deviation.

    Args:
        num_classes: number of class folders there must be.
        image_size: pixels per side.
        batch_size: images per step and process.
        num_workers: loader processes.
        augment: how training images are cropped, and what happens to them besides; a dictionary of
            its fields, too.
        limit: use at most this many images of each split, spread evenly over the images in the
            order of their classes.
        data_root: holds one folder per data set; None is $SPIKEBENCH_DATA, else `data`.
    """

    published = Published(
        "ImageNet-1K",
        "imagenet",
        "get ILSVRC2012 from https://image-net.org/download.php and sort its images into "
        "imagenet/train and imagenet/val, one folder per class, named by WordNet id,",
    )
    test_split = "val"

    def __init__(
        self,
        num_classes: int = 1000,
        image_size: int = 224,
        batch_size: int = 128,
        num_workers: int = 8,
        augment: CropAugmentation | None = None,
        limit: int | None = None,
        data_root: Path | None = None,
    ) -> None:
        super().__init__(num_classes, image_size, batch_size, num_workers, limit, data_root)
        self.augment = typed(CropAugmentation, augment or {}, "data.augment")

    def require(self, training: bool) -> None:
        """Look at the folders of the classes.

        Raises:
            MissingDataError: a split is not there, or is empty.
            DatasetError: there are more or fewer classes than `num_classes`.
        """
        splits = [self.folder / split for split in ("train", "val")[not training :]]
        self.published.require(*splits)
        for folder in reversed(splits):
            require_classes(self.published, folder, self.num_classes, like=splits[-1])

    def setup(self, stage: str | None = None) -> None:
        training = stage in (None, "fit")
        self.require(training)
        if training:
            self.train = self._images("train", is_training=True, **asdict(self.augment))
        self.test = self._images("val")
        self.classes = self.test.dataset.classes  # type: ignore[attr-defined]

    @property
    def train_samples(self) -> int | None:
        """Images to train on; None where the weights were trained elsewhere and none are here."""
        try:
            return len(self._images("train"))
        except FileNotFoundError:
            return None

    def _images(self, split: str, **options: Any) -> Subset:
        transform = imagenet_transform(self.image_size, **options)
        images = ImageFolder(str(self.folder / split), transform, loader=read_image)
        return Subset(images, evenly_spread(len(images), self.limit))

"""ImageNet-1K in tar files.

Files: `imagenet-shards/{train,val}-*.tar`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from spikebench.errors import UserError
from spikebench.images import imagenet_transform
from spikebench.registry import DATASETS
from spikebench.seeding import derived_seed
from spikebench.task import ConfigError
from spikebench_tasks.classification.datamodule import DataModule
from spikebench_tasks.classification.options import CropAugmentation, typed
from spikebench_tasks.classification.shards import Shards
from spikebench_tasks.datasets import DatasetError
from spikebench_tasks.datasets.published import Published


@DATASETS.register(name="imagenet_shards")
class ImageNetShardsDataModule(DataModule):
    """ImageNet-1K from `imagenet-shards/{train,val}-*.tar` below the data root.

    Images are treated as in `ImageNetDataModule`. Each process, and each of its workers, reads
    files of its own, so that there must be as many; an epoch has as many images of each. The order
    is a loader's, so that a Trainer needs `reload_dataloaders_every_n_epochs=1`.

    Args:
        num_classes: number of classes.
        image_size: pixels per side.
        batch_size: images per step and process.
        num_workers: loader processes.
        augment: as in `ImageNetDataModule`.
        samples: number of images in the files of each split.
        limit: use at most this many images: of testing the first ones, in training any.
        data_root: holds one folder per data set; None is $SPIKEBENCH_DATA, else `data`.
    """

    published = Published(
        "ImageNet-1K in tar files",
        "imagenet-shards",
        "write its images into tar files (https://github.com/webdataset/webdataset), <name>.jpg "
        "beside <name>.cls, which holds the number of the class, as "
        "imagenet-shards/train-000000.tar and so on, and imagenet-shards/val-000000.tar",
    )
    test_split = "val"
    train: Shards
    test: Shards

    def __init__(
        self,
        num_classes: int = 1000,
        image_size: int = 224,
        batch_size: int = 128,
        num_workers: int = 8,
        augment: CropAugmentation | None = None,
        samples: Mapping[str, int] | None = None,
        limit: int | None = None,
        data_root: Path | None = None,
    ) -> None:
        super().__init__(num_classes, image_size, batch_size, num_workers, limit, data_root)
        self.augment = typed(CropAugmentation, augment or {}, "data.augment")
        self.samples = dict(samples or {"train": 1_281_167, "val": 50_000})

    def require(self, training: bool) -> None:
        """Look for the tar files.

        Raises:
            MissingDataError: a split has none.
            UserError: the package webdataset is not installed.
        """
        if importlib.util.find_spec("webdataset") is None:
            raise UserError("shards need the package webdataset; pip install 'spikebench[shards]'")
        for split in ("train", "val") if training else ("val",):
            self._files(split)

    def setup(self, stage: str | None = None) -> None:
        self.classes = [str(label) for label in range(self.num_classes)]
        if stage in (None, "fit"):
            self.train = self._shards("train", is_training=True, **asdict(self.augment))
        self.test = self._shards("val")

    @property
    def train_samples(self) -> int | None:
        """Images to train on; None where there are none."""
        folder = self.folder
        return self._count("train") if next(folder.glob("train-*.tar"), None) else None

    def train_dataloader(self) -> DataLoader:
        """Images in an order that follows from the seed and the epoch.

        Raises:
            ConfigError: the Trainer does not ask for a new loader, and thus order, in each epoch.
            DatasetError: there are fewer files than readers, or fewer images than a batch.
        """
        reloads = getattr(self.trainer, "reload_dataloaders_every_n_epochs", 1)
        if reloads != 1:
            raise ConfigError(
                f"trainer.reload_dataloaders_every_n_epochs is {reloads}; expected 1 with shards, "
                "whose order would be the same in every epoch; set it to 1"
            )
        rank, processes = self.share()
        epoch = 0 if self.trainer is None else self.trainer.current_epoch
        readers = processes * max(1, self.num_workers)
        files = self.train.files
        if len(files) < readers:
            raise DatasetError(
                f"{self.folder} holds {len(files)} tar files to train on, and "
                f"{readers} processes read (data.num_workers is {self.num_workers}); expected at "
                "least one for each"
            )
        batches = self._count("train") // readers // self.batch_size
        if not batches:
            raise DatasetError(
                f"{self._count('train')} images for {readers} processes are no batch of "
                f"{self.batch_size} each; lower data.batch_size or data.num_workers"
            )
        share = Shards(
            files[rank::processes],
            self.train.transform,
            batches * self.batch_size * max(1, self.num_workers),
            self.num_classes,
            derived_seed(self.run_seed(), epoch),
        )
        return self._loader(share)

    def test_dataloader(self) -> DataLoader:
        """Images as they lie; of several processes each has its own, and every image is in one."""
        rank, processes = self.share()
        if self.limit:  # a few images of the first files: shared out image by image
            files, chosen = self.test.files, slice(rank, self.limit, processes)
        else:
            files, chosen = self.test.files[rank::processes], slice(0, None)
            if len(self.test.files) < processes:
                raise DatasetError(
                    f"{self.folder} holds {len(self.test.files)} tar files to test on, "
                    f"and there are {processes} processes; expected at least one for each"
                )
        share = Shards(files, self.test.transform, len(self.test), self.num_classes, None, chosen)
        workers = 0 if self.limit else min(self.num_workers, len(files))
        return DataLoader(share, batch_size=self.batch_size, num_workers=workers)

    def _shards(self, split: str, **options: Any) -> Shards:
        transform = imagenet_transform(self.image_size, **options)
        return Shards(self._files(split), transform, self._count(split), self.num_classes)

    def _count(self, split: str) -> int:
        return min(self.samples[split], self.limit or self.samples[split])

    def _files(self, split: str) -> list[Path]:
        self.published.require(self.folder)
        found = sorted(self.folder.glob(f"{split}-*.tar"))
        self.published.require(*(found or [self.folder / f"{split}-000000.tar"]))
        return found

"""ImageNet at scale: images in tar files, read one after the other (WebDataset)."""

from __future__ import annotations

import importlib.util
import io
import itertools
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from timm.data import create_transform
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from spikebench.errors import UserError
from spikebench_tasks.classification.data import CROP_PCT, DataModule, derived_seed, read_image
from spikebench_tasks.datasets import DatasetError
from spikebench_tasks.datasets.published import IMAGENET_SHARDS

_IMAGES = ("jpg", "jpeg", "png", "webp")
_Read = tuple[Path, Mapping[str, Any]]  # a tar file, and what it holds of one image
_BUFFERED = 5000  # images among which each next one is drawn in training


class Shards(IterableDataset[tuple[Tensor, int]]):
    """The images of some tar files, each `<name>.jpg` beside a `<name>.cls` with its class.

    Args:
        files: the tar files of this process.
        transform: an image to a tensor.
        samples: how many images make an epoch of this process.
        num_classes: how many classes there are.
        seed: of the order of files and images, which are begun again where they hold fewer than
            `samples`; None has them as they lie, each once.
        chosen: without a seed, which of the images.

    Raises:
        DatasetError: a file cannot be read or holds no images, or an image cannot be read or has
            no class, or none that there is; the message names it.
    """

    def __init__(
        self,
        files: list[Path],
        transform: Callable[[Image.Image], Tensor],
        samples: int,
        num_classes: int,
        seed: int | None = None,
        chosen: slice = slice(0, None),
    ) -> None:
        self.files = files
        self.transform = transform
        self.samples = samples
        self.num_classes = num_classes
        self.seed = seed
        self.chosen = chosen

    def __len__(self) -> int:
        return self.samples

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        worker = get_worker_info()
        place, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        if self.seed is None:
            images = self._read(self.files[place::workers])
            images = itertools.islice(images, self.chosen.start, self.chosen.stop, self.chosen.step)
        else:
            images = itertools.islice(self._forever(place, workers), self.samples // workers)
        for path, sample in images:
            yield self._decoded(path, sample)

    def _forever(self, place: int, workers: int) -> Iterator[_Read]:
        import webdataset

        for time in itertools.count():
            assert self.seed is not None
            seed = derived_seed(self.seed, time)
            order = np.random.default_rng(seed).permutation(len(self.files))
            files = [self.files[index] for index in order][place::workers]
            yield from webdataset.shuffle(_BUFFERED, seed=seed)(self._read(files))

    def _read(self, files: list[Path]) -> Iterator[_Read]:
        import webdataset

        for path in files:
            count = 0
            try:
                for sample in webdataset.tarfile_to_samples()([{"url": str(path)}]):
                    count += 1
                    yield path, sample
            except (tarfile.TarError, OSError, ValueError) as error:
                strange = getattr(error, "strerror", None) or str(
                    error.args[0] if error.args else error
                )
                reason = strange.partition(" @ ")[0]
                raise DatasetError(f"{path} cannot be read: {reason}; get it again") from error
            if not count:
                raise DatasetError(f"{path} holds no images; get it again, or leave it out")

    def _decoded(self, path: Path, sample: Mapping[str, Any]) -> tuple[Tensor, int]:
        name = sample["__key__"]
        kind = next((each for each in _IMAGES if each in sample), None)
        if kind is None or "cls" not in sample:
            missing = "image" if kind is None else "class"
            raise DatasetError(
                f"{path}: {name} has no {missing}; expected {name}.jpg beside {name}.cls"
            )
        image = read_image(io.BytesIO(sample[kind]), f"{path}: {name}")
        label = sample["cls"].decode(errors="replace").strip()
        if not label.isdecimal() or not int(label) < self.num_classes:
            raise DatasetError(
                f"{path}: {name} is of class {label}; expected 0 to {self.num_classes - 1} "
                "(data.num_classes)"
            )
        return self.transform(image), int(label)


class ImageNetShardsDataModule(DataModule):
    """ImageNet-1K from `imagenet-shards/{train,val}-*.tar` below the data root.

    Images are treated as in `ImageNetDataModule`. Each process, and each of its workers, reads
    files of its own, so that there must be as many; an epoch has as many images of each.

    Args:
        num_classes: how many classes.
        image_size: pixels each side.
        batch_size: images a step.
        num_workers: loader processes.
        augment: as in `ImageNetDataModule`.
        samples: how many images the files of each split hold.
        limit: use only so many images: of testing the first ones, in training any.
    """

    name = "imagenet_shards"
    test_split = "val"
    train: Shards
    test: Shards

    def __init__(
        self,
        num_classes: int = 1000,
        image_size: int = 224,
        batch_size: int = 128,
        num_workers: int = 8,
        augment: Mapping[str, Any] | None = None,
        samples: Mapping[str, int] | None = None,
        limit: int | None = None,
    ) -> None:
        super().__init__(num_classes, image_size, batch_size, num_workers, limit)
        self.augment = dict(augment or {})
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
            self.train = self._shards("train", is_training=True, **self.augment)
        self.test = self._shards("val", crop_pct=CROP_PCT)

    @property
    def train_samples(self) -> int | None:
        """Images to train on; None where there are none."""
        folder = IMAGENET_SHARDS.folder
        return self._count("train") if next(folder.glob("train-*.tar"), None) else None

    def train_dataloader(self) -> DataLoader:
        """Images in an order that follows from the seed and the epoch."""
        rank, processes = self.share()
        epoch = 0 if self.trainer is None else self.trainer.current_epoch
        readers = processes * max(1, self.num_workers)
        files = self.train.files
        if len(files) < readers:
            raise DatasetError(
                f"{IMAGENET_SHARDS.folder} holds {len(files)} tar files to train on, and "
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
                    f"{IMAGENET_SHARDS.folder} holds {len(self.test.files)} tar files to test on, "
                    f"and there are {processes} processes; expected at least one for each"
                )
        share = Shards(files, self.test.transform, len(self.test), self.num_classes, None, chosen)
        workers = 0 if self.limit else min(self.num_workers, len(files))
        return DataLoader(share, self.batch_size, num_workers=workers)

    def _shards(self, split: str, **options: Any) -> Shards:
        transform = create_transform(self.image_size, interpolation="bicubic", **options)
        return Shards(self._files(split), transform, self._count(split), self.num_classes)

    def _count(self, split: str) -> int:
        return min(self.samples[split], self.limit or self.samples[split])

    def _files(self, split: str) -> list[Path]:
        IMAGENET_SHARDS.require(IMAGENET_SHARDS.folder)
        found = sorted(IMAGENET_SHARDS.folder.glob(f"{split}-*.tar"))
        IMAGENET_SHARDS.require(*(found or [IMAGENET_SHARDS.folder / f"{split}-000000.tar"]))
        return found

"""Images in tar files, read one after the other (WebDataset)."""

from __future__ import annotations

import io
import itertools
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from spikebench.seeding import derived_seed
from spikebench_tasks.classification.folders import read_image
from spikebench_tasks.datasets import DatasetError

_IMAGES = ("jpg", "jpeg", "png", "webp")
_Read = tuple[Path, Mapping[str, Any]]  # a tar file, and what it holds of one image
_BUFFERED = 5000  # images among which each next one is drawn in training


class Shards(IterableDataset[tuple[Tensor, int]]):
    """The images of some tar files, each `<name>.jpg` beside a `<name>.cls` with its class.

    Args:
        files: the tar files of this process.
        transform: an image to a tensor.
        samples: number of images in an epoch of this process.
        num_classes: number of classes.
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

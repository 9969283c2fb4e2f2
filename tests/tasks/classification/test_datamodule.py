from __future__ import annotations

import pkgutil
from pathlib import Path

import lightning as L
import pytest
import torch
from PIL import Image
from torch.utils.data import DistributedSampler

from spikebench.registry import DATASETS, UnknownNameError
from spikebench.task import MissingDataError
from spikebench_tasks.classification import datasets
from spikebench_tasks.classification.datamodule import DataModule
from spikebench_tasks.classification.datasets import build_data_module
from spikebench_tasks.classification.datasets.digits import Digits, DigitsDataModule
from spikebench_tasks.classification.folders import read_image
from spikebench_tasks.classification.samplers import EpochShuffle, InOrder
from spikebench_tasks.datasets import DatasetError
from spikebench_tasks.datasets.digits import load_glyphs


def stacked(dataset: Digits) -> torch.Tensor:
    return torch.stack([dataset[index][0] for index in range(len(dataset))])


@pytest.mark.parametrize(("split", "count"), [("train", 1442), ("test", 355)])
def test_images_are_grey_enlarged_and_labelled(split: str, count: int):
    dataset = Digits(split, size=24)
    assert len(dataset) == count
    image, label = dataset[7]
    assert image.shape == (3, 24, 24)
    assert image.dtype == torch.float32
    assert torch.equal(image[0], image[1])
    assert torch.equal(image[0], image[2])
    assert label == load_glyphs(split).labels[7]
    assert type(label) is int


def test_both_splits_are_normalised_by_the_training_split():
    native = {split: stacked(Digits(split, size=8)) for split in ("train", "test")}
    assert native["train"].mean().item() == pytest.approx(0, abs=1e-5)
    assert native["train"].std().item() == pytest.approx(1, abs=1e-3)
    images = load_glyphs("train").images
    expected = (torch.from_numpy(load_glyphs("test").images) - images.mean()) / images.std()
    torch.testing.assert_close(native["test"][:, 0], expected)


def test_only_training_images_are_augmented():
    data = DigitsDataModule(batch_size=1000, limit=4)
    data.setup("fit")
    plain = stacked(Digits("train", limit=4))
    torch.manual_seed(0)
    first, second = stacked(data.train), stacked(data.train)
    assert not torch.equal(first, second)
    assert not torch.equal(first, plain)
    corners = first[:, :, [0, 0, -1, -1], [0, -1, 0, -1]]
    background = plain.min().expand_as(corners)
    torch.testing.assert_close(corners, background, atol=0.05, rtol=0)  # and not grey
    assert torch.equal(stacked(data.test), stacked(data.test))
    assert torch.equal(stacked(data.test), stacked(Digits("test", limit=4)))


def test_training_is_shuffled_and_testing_is_not():
    data = DigitsDataModule(batch_size=64)
    data.setup()
    torch.manual_seed(0)
    orders = [next(iter(data.train_dataloader()))[1].tolist() for _ in range(2)]
    assert orders[0] != orders[1]
    for loader in (data.test_dataloader(), data.val_dataloader()):
        labels = torch.cat([labels for _, labels in loader])
        assert labels.tolist() == load_glyphs("test").labels.tolist()


def test_a_limit_shortens_both_splits():
    data = build_data_module("digits", limit=5, image_size=16, batch_size=2)
    data.setup()
    assert len(data.train) == len(data.test) == 5
    assert next(iter(data.test_dataloader()))[0].shape == (2, 3, 16, 16)
    assert data.num_classes == 10


def test_an_unknown_data_set_suggests_a_known_one():
    with pytest.raises(UnknownNameError, match="'digit'.*'digits'"):
        build_data_module("digit", limit=None)


def test_an_unknown_argument_suggests_a_known_one():
    with pytest.raises(UnknownNameError, match="batchsize.*'batch_size'"):
        build_data_module("digits", batchsize=3)
    with pytest.raises(UnknownNameError, match="strides.*'stride'"):  # of the class itself
        build_data_module("dvs128gesture_clips", strides=3)
    with pytest.raises(UnknownNameError, match="frame.*'frames'"):  # of the class it is made of
        build_data_module("dvs128gesture_clips", frame="time")


def test_a_data_set_takes_its_own_file_alone():
    files = {one.name for one in pkgutil.iter_modules(datasets.__path__)}
    homes = {DATASETS.get(name).__module__.rpartition(".")[2] for name in DATASETS.names()}
    assert files <= homes
    assert len(files) == 11
    assert all(build_data_module(name).name == name for name in DATASETS.names())


def test_one_that_nobody_named_has_a_name_for_records():
    class Theirs(DataModule):
        pass

    data = Theirs(2, image_size=8, batch_size=1, num_workers=0, limit=None)
    assert data.title == "Theirs"
    assert data.train_samples is None


def test_data_lie_below_the_root_that_is_given(tmp_path: Path):
    data = build_data_module("cifar10", data_root=tmp_path / "sets")
    with pytest.raises(MissingDataError, match=str(tmp_path / "sets" / "cifar10" / "train")):
        data.require(training=True)


def test_an_order_follows_from_seed_and_epoch_alone():
    orders = {}
    for seed in (0, 1):
        sampler = EpochShuffle(range(100), seed)
        for epoch in range(3):
            sampler.set_epoch(epoch)
            orders[seed, epoch] = tuple(sampler)
            assert sorted(sampler) == list(range(100))
            assert tuple(EpochShuffle(range(100), seed, epoch)) == orders[seed, epoch]
    assert len(set(orders.values())) == 6


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore")
def test_in_a_trainer_of_ones_own_every_epoch_has_its_order_and_its_noise(workers: int):
    seen: list[torch.Tensor] = []
    orders: list[list[int]] = []

    class Sees(L.LightningModule):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            seen.append(batch[0])
            orders.append(batch[1].tolist())

        def configure_optimizers(self):
            return None

    data = DigitsDataModule(image_size=8, batch_size=64, num_workers=workers, limit=64)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    L.Trainer(max_epochs=3, accelerator="cpu", enable_model_summary=False, **quiet).fit(
        Sees(), data
    )
    sums = [sorted(images.sum((1, 2, 3)).tolist()) for images in seen]
    assert len(sums) == 3
    assert sums[0] != sums[1] != sums[2] != sums[0]
    assert orders[0] != orders[1] != orders[2] != orders[0]


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_a_trainer_of_ones_own_does_not_share_out_twice(processes: int):
    """Lightning leaves samplers alone that are DistributedSamplers already."""
    shares = [InOrder(range(10), (rank, processes)) for rank in range(processes)]
    assert sorted(index for share in shares for index in share) == list(range(10))
    assert [len(share) for share in shares] == [len(list(share)) for share in shares]
    assert all(isinstance(one, DistributedSampler) for one in [*shares, EpochShuffle(range(3), 0)])


def test_an_image_of_too_many_pixels_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DatasetError, match=r"a\.png .*1024"):
        read_image(tmp_path / "a.png")

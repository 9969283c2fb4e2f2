"""ImageNet in tar files: every image once, in an order that can be had again."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from spikebench.errors import UserError
from spikebench.task import ConfigError, MissingDataError
from spikebench_tasks.classification.datasets.imagenet_shards import ImageNetShardsDataModule
from spikebench_tasks.datasets import DatasetError

pytest.importorskip("webdataset", reason="pip install 'spikebench[shards]'")

FILES, EACH = 4, 6


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def image(shade: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (40, 36), (shade, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files of which each image has a class of its own."""
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path))
    folder = tmp_path / "imagenet-shards"
    for split in ("train", "val"):
        for number in range(FILES):
            labels = range(EACH * number, EACH * (number + 1))
            members = {}
            for label in labels:
                members |= {f"{label}.png": image(10 * label), f"{label}.cls": b"%d" % label}
            write_tar(folder / f"{split}-{number:06}.tar", members)
    return folder


def built(**options) -> ImageNetShardsDataModule:
    options = {
        "image_size": 32,
        "batch_size": 3,
        "num_workers": 0,
        "samples": {"train": FILES * EACH, "val": FILES * EACH},
        **options,
    }
    data = ImageNetShardsDataModule(num_classes=FILES * EACH, **options)
    data.require(training=True)
    data.setup()
    return data


def in_process(data: ImageNetShardsDataModule, rank: int, processes: int, epoch: int = 0):
    data.trainer = SimpleNamespace(
        global_rank=rank,
        world_size=processes,
        current_epoch=epoch,
        reload_dataloaders_every_n_epochs=1,
    )
    data._seed = 5
    return data


def labels(loader) -> list[int]:
    return [label for _, batch in loader for label in batch.tolist()]


@pytest.mark.parametrize("workers", [0, 2])
def test_each_image_is_tested_once(root: Path, workers: int):
    data = built(num_workers=workers)
    found = labels(data.test_dataloader())
    assert sorted(found) == list(range(FILES * EACH))
    assert workers or found == list(range(FILES * EACH))
    shares = [labels(in_process(data, rank, 2).test_dataloader()) for rank in (0, 1)]
    assert sorted(shares[0] + shares[1]) == list(range(FILES * EACH))


def test_a_limit_takes_the_first(root: Path):
    data = built(limit=5)
    assert len(data.test) == 5
    assert labels(data.test_dataloader()) == [0, 1, 2, 3, 4]
    shares = [labels(in_process(data, rank, 2).test_dataloader()) for rank in (0, 1)]
    assert shares == [[0, 2, 4], [1, 3]]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_has_each_image_once_in_an_order_of_its_own(root: Path, workers: int):
    data = built(num_workers=workers)
    orders = []
    for epoch in (0, 1, 1):
        loader = in_process(data, 0, 1, epoch).train_dataloader()
        orders.append(labels(loader))
        assert len(loader) == FILES * EACH // 3
        assert sorted(orders[-1]) == list(range(FILES * EACH))
    assert orders[0] != orders[1] == orders[2]


def test_processes_have_equally_many_steps(root: Path):
    data = built(samples={"train": 22, "val": 24}, batch_size=2)
    loaders = [in_process(data, rank, 2).train_dataloader() for rank in (0, 1)]
    shares = [labels(loader) for loader in loaders]
    assert len(shares[0]) == len(shares[1]) == 10
    assert not set(shares[0]) & set(shares[1])


def test_images_are_what_the_files_hold(root: Path):
    images, _ = next(iter(built(batch_size=24).test_dataloader()))
    assert images.shape == (24, 3, 32, 32)
    shades = images[:, 0, 16, 16]
    assert (shades.diff() > 0).all()


class TestBadInput:
    def failed(self, kind: type = DatasetError, **options) -> str:
        with pytest.raises(kind) as error:
            labels(built(**options).test_dataloader())
        return str(error.value)

    def test_a_missing_split(self, root: Path):
        for path in root.glob("val-*"):
            path.unlink()
        assert "val-000000.tar is not there" in self.failed(MissingDataError)

    def test_an_image_without_a_class(self, root: Path):
        path = write_tar(root / "val-000000.tar", {"a.png": image(3)})
        assert self.failed() == f"{path}: a has no class; expected a.jpg beside a.cls"

    def test_an_image_that_cannot_be_read(self, root: Path):
        path = write_tar(root / "val-000001.tar", {"a.png": image(3)[:40], "a.cls": b"3"})
        assert self.failed().startswith(f"{path}: a cannot be read: ")

    def test_a_class_that_there_is_not(self, root: Path):
        path = write_tar(root / "val-000000.tar", {"a.png": image(3), "a.cls": b"24"})
        assert self.failed().startswith(f"{path}: a is of class 24; expected 0 to 23 (data.num")

    def test_fewer_files_than_processes(self, root: Path):
        with pytest.raises(DatasetError, match="4 tar files .* 5 processes"):
            in_process(built(), 4, 5).test_dataloader()

    @pytest.mark.parametrize("kept", [0, 700, 5000])
    def test_a_file_that_is_cut_off(self, root: Path, kept: int):
        path = root / "val-000002.tar"
        path.write_bytes(path.read_bytes()[:kept])
        assert str(path) in self.failed()

    def test_more_readers_than_files(self, root: Path):
        with pytest.raises(DatasetError, match="4 tar files .* 5 processes"):
            built(num_workers=5).train_dataloader()

    def test_fewer_images_than_a_batch(self, root: Path):
        with pytest.raises(DatasetError, match="24 images .*25 "):
            built(batch_size=25).train_dataloader()

    def test_a_trainer_that_keeps_its_loader(self, root: Path):
        data = in_process(built(), 0, 1)
        data.trainer.reload_dataloaders_every_n_epochs = 0
        with pytest.raises(ConfigError, match="reload_dataloaders_every_n_epochs is 0"):
            data.train_dataloader()

    def test_without_the_package(self, root: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(UserError, match=r"pip install 'spikebench\[shards\]'"):
            built()

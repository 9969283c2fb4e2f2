"""ImageNet, in small: class folders of PNG files, and published weights scored on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from spikebench import build_classifier, profile_operations
from spikebench.errors import UserError
from spikebench.task import ConfigError, MissingDataError, Run
from spikebench_tasks.classification.datamodule import DataModule
from spikebench_tasks.classification.datasets import build_data_module
from spikebench_tasks.classification.datasets.imagenet import ImageNetDataModule
from spikebench_tasks.classification.module import ClassificationModule
from spikebench_tasks.classification.task import ClassificationTask
from spikebench_tasks.datasets import DatasetError
from tests.benchmark.weights.test_loading import as_published

CONFIG = Path(__file__).parents[3] / "configs" / "classification" / "imagenet.py"
CLASSES = ("n01440764", "n01443537", "n01484850")
EACH = {"train": 2, "val": 4}
SIZE = 32

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with three classes, images of all shapes; the folders made last class first."""
    rng = np.random.default_rng(0)
    for split, count in EACH.items():
        for name in reversed(CLASSES):
            folder = tmp_path / "imagenet" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                height, width = rng.integers(40, 90, 2)
                low = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
                low.resize((width, height), Image.Resampling.BILINEAR).save(
                    folder / f"{name}_{index}.png"
                )
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path))
    return tmp_path / "imagenet"


@pytest.fixture
def new_run(make_run: Callable[..., Run]) -> Callable[..., Run]:
    def make(*overrides: str, limit: int | None = None) -> Run:
        small = [f"data.image_size={SIZE}", "data.batch_size=5", "data.num_workers=0"]
        config = ClassificationTask().resolve(
            CONFIG, "meta_spikeformer_nano", {}, ["data.num_classes=3", *small, *overrides]
        )
        return make_run("classification", config, limit=limit)

    return make


def data_module(**options: Any) -> DataModule:
    return build_data_module(
        "imagenet",
        **{"num_classes": 3, "image_size": SIZE, "num_workers": 0, "limit": None, **options},
    )


def paths(root: Path, split: str = "val") -> list[Path]:
    return [path for name in CLASSES for path in sorted((root / split / name).iterdir())]


def prepared(path: Path, shorter: int, size: int) -> Tensor:
    """A test image by Pillow and NumPy alone."""
    with Image.open(path) as opened:
        scale = shorter / min(opened.size)
        width, height = (int(side * scale) for side in opened.size)
        resized = opened.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - size) / 2), round((height - size) / 2)
    pixels = np.asarray(resized.crop((left, top, left + size, top + size))) / 255
    normalised = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return torch.from_numpy(normalised).permute(2, 0, 1).float()


def varied(images: Tensor, distillation: bool, time_steps: int = 1) -> nn.Module:
    """A classifier of random weights, fitted to the images so far that its answers vary."""
    torch.manual_seed(0)
    model = build_classifier("meta_spikeformer_nano", 3, time_steps, distillation)
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.momentum = None
    with torch.no_grad():
        for head in (model.head, model.distillation_head):
            if head is not None:
                head.weight.normal_()
        model(images)
        scale = 2 if distillation else 1  # the bias counts half in the mean of two heads
        model.head.bias -= scale * model.eval()(images).mean(0)
    return model


class TestImages:
    @pytest.mark.parametrize(("size", "shorter"), [(32, 36), (224, 256)])
    def test_a_test_image_is_resized_cropped_and_normalised(self, root: Path, size, shorter):
        data = data_module(image_size=size)
        data.setup("test")
        expected = paths(root)
        assert len(data.test) == len(expected) == 12
        for index in (0, 5, 11):
            image, label = data.test[index]
            assert label == index // EACH["val"]
            torch.testing.assert_close(
                image, prepared(expected[index], shorter, size), rtol=0, atol=1e-5
            )

    def test_training_images_are_shuffled_and_augmented(self, root: Path):
        data = data_module(augment={"auto_augment": "rand-m9-mstd0.5-inc1", "re_prob": 0.25})
        data.setup("fit")
        assert len(data.train) == len(paths(root, "train"))
        first, second = data.train[0][0], data.train[0][0]
        assert first.shape == (3, SIZE, SIZE)
        assert not torch.equal(first, second)
        assert torch.equal(data.test[0][0], data.test[0][0])
        torch.manual_seed(0)
        orders = [next(iter(data.train_dataloader()))[1].tolist() for _ in range(5)]
        assert len({tuple(order) for order in orders}) > 1

    def test_what_the_configuration_does_to_training_images_is_done(self, root: Path, new_run):
        data = build_data_module(limit=None, **new_run().config["data"])
        data.setup("fit")
        done = str(data.train.dataset.transform)
        for part in ("RandomResizedCrop", "RandomHorizontalFlip", "RandAugment", "RandomErasing"):
            assert part in done
        assert "ColorJitter" not in done

    @pytest.mark.parametrize(
        ("limit", "kept"), [(3, [0, 4, 8]), (5, [0, 2, 4, 7, 9]), (99, list(range(12)))]
    )
    def test_a_limit_spreads_over_the_classes(self, root: Path, limit: int, kept: list[int]):
        data = data_module(limit=limit)
        data.setup("test")
        every = data_module()
        every.setup("test")
        assert len(data.test) == len(kept)
        for index, (image, label) in zip(kept, data.test, strict=True):
            assert torch.equal(image, every.test[index][0])
            assert label == every.test[index][1]

    def test_nothing_is_read_before_it_is_asked_for(self, tmp_path: Path, monkeypatch):
        monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path / "none"))
        assert isinstance(build_data_module("imagenet", limit=None), ImageNetDataModule)


class TestEvaluate:
    @pytest.mark.parametrize("distillation", [False, True])
    @pytest.mark.parametrize("layout", ["safetensors", "published"])
    @pytest.mark.parametrize("time_steps", [1, 2])
    def test_published_weights_are_scored(
        self, root: Path, new_run, tmp_path: Path, distillation: bool, layout: str, time_steps: int
    ):
        """Against answers to images that Pillow prepared, of both heads' mean."""
        images = torch.stack([prepared(path, 36, SIZE) for path in paths(root)])
        labels = np.arange(12) // EACH["val"]
        model = varied(images, distillation, time_steps)
        if layout == "safetensors":
            checkpoint = tmp_path / "weights.safetensors"
            save_file(model.state_dict(), checkpoint)
        else:
            checkpoint = tmp_path / "weights.pth"
            torch.save({"model": as_published(model), "epoch": 199}, checkpoint)
        with torch.no_grad():
            found = model(images).argmax(1).numpy()
        assert len(set(found)) > 1
        run = new_run(f"model.time_steps={time_steps}")
        metrics, dataset, *_ = ClassificationTask().evaluate(run, checkpoint)
        assert metrics["top1"] == (found == labels).mean()
        assert metrics.keys() == {"top1", "ece"}
        assert 0 < metrics["top1"] < 1
        assert dataset.model_dump() == {
            "name": "imagenet",
            "split": "val",
            "train_samples": 6,
            "test_samples": 12,
        }

    def test_a_distillation_head_counts(self, root: Path, new_run, tmp_path: Path, monkeypatch):
        """The mean of both heads, and not the first: here the second has the last word."""
        images = torch.stack([prepared(path, 36, SIZE) for path in paths(root)])
        model = varied(images, distillation=True)
        with torch.no_grad():
            model.distillation_head.bias.copy_(torch.tensor([0.0, 1e4, 0.0]))
        save_file(model.state_dict(), tmp_path / "weights.safetensors")
        metrics, *_ = ClassificationTask().evaluate(new_run(), tmp_path / "weights.safetensors")
        assert metrics["top1"] == 1 / 3

    def test_scores_are_of_full_precision(self, root: Path, new_run, tmp_path: Path, monkeypatch):
        """The recipe trains in mixed precision; on a CPU that would be bfloat16."""
        kinds = set()
        original = ClassificationModule.test_step

        def test_step(self, batch, batch_idx):
            kinds.update((torch.is_autocast_enabled("cpu"), self.model(batch[0]).dtype))
            return original(self, batch, batch_idx)

        monkeypatch.setattr(ClassificationModule, "test_step", test_step)
        run = new_run()
        assert run.config["trainer"]["precision"] == "16-mixed"
        save_file(
            build_classifier("meta_spikeformer_nano", 3).state_dict(), tmp_path / "w.safetensors"
        )
        ClassificationTask().evaluate(run, tmp_path / "w.safetensors")
        assert kinds == {False, torch.float32}

    def test_the_training_split_need_not_be_there(self, root: Path, new_run, tmp_path: Path):
        (root / "train").rename(root / "elsewhere")
        save_file(
            build_classifier("meta_spikeformer_nano", 3).state_dict(), tmp_path / "w.safetensors"
        )
        run = new_run(limit=7)
        _, dataset, *_ = ClassificationTask().evaluate(run, tmp_path / "w.safetensors")
        assert (dataset.train_samples, dataset.test_samples) == (None, 7)

    def test_its_operations_are_counted_on_its_images(self, root: Path, new_run, tmp_path: Path):
        images = torch.stack([prepared(path, 36, SIZE) for path in paths(root)])
        save_file(varied(images, True).state_dict(), tmp_path / "w.safetensors")
        probe = ClassificationTask().probe(new_run(), tmp_path / "w.safetensors")
        batches = list(probe.batches)
        torch.testing.assert_close(torch.cat(batches), images, rtol=0, atol=1e-5)
        report = profile_operations(probe.model, batches[:1], forward=probe.forward)
        assert {"head", "distillation_head"} <= {row.name for row in report.rows}


class TestMissing:
    @pytest.fixture
    def uses(self, new_run, tmp_path: Path, monkeypatch) -> list[Callable[[], Any]]:
        """What a run does; nothing may be built by any of it."""

        def build(*_: Any, **__: Any) -> None:
            pytest.fail("a model was built")

        monkeypatch.setattr(ClassificationModule, "__init__", build)
        run, task, weights = new_run(), ClassificationTask(), tmp_path / "none.pth"
        return [
            lambda: task.train(run),
            lambda: task.evaluate(run, weights),
            lambda: task.probe(run, weights),
        ]

    @pytest.fixture
    def no_data(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path / "none"))

    def test_no_data_set(self, no_data: None, uses, tmp_path: Path):
        for use, split in zip(uses, ("train", "val", "val"), strict=True):
            with pytest.raises(MissingDataError) as caught:
                use()
            line = str(caught.value)
            assert line.startswith(
                f"ImageNet-1K is missing: {tmp_path}/none/imagenet/{split} is not there; get "
            )
            assert "https://image-net.org/download.php" in line
            assert line.endswith("below the data root (--data-root or $SPIKEBENCH_DATA)")
            assert "\n" not in line
            assert isinstance(caught.value, UserError)
            assert isinstance(caught.value, FileNotFoundError)

    def test_a_class_without_images(self, root: Path, uses):
        for path in (root / "val" / CLASSES[1]).iterdir():
            path.unlink()
        for use in uses:
            with pytest.raises(MissingDataError, match=f"val/{CLASSES[1]} "):
                use()

    def test_another_number_of_classes(self, root: Path, uses):
        for path in (root / "val" / CLASSES[1]).iterdir():
            path.rename(root / "val" / path.name)  # as the archive of ILSVRC2012 has them
        (root / "val" / CLASSES[1]).rmdir()
        for use in uses:
            with pytest.raises(DatasetError, match=r"/imagenet/val .*2 .*3 "):
                use()


def test_training_a_distillation_head_without_a_teacher_is_refused(root: Path, new_run):
    with pytest.raises(ConfigError, match="model.distillation=True"):
        ClassificationTask().train(new_run("+model.distillation=True"))


def test_it_trains(root: Path, new_run, tmp_path: Path):
    run = new_run("trainer.max_epochs=1", "trainer.precision=32-true")
    checkpoint = ClassificationTask().train(run)
    metrics, dataset, *_ = ClassificationTask().evaluate(run, checkpoint)
    assert 0 <= metrics["top1"] <= 1
    assert dataset.train_samples == 6

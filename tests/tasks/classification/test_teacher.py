"""Hard distillation from a teacher, and starting from weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
from torch.nn import functional as F

from spikebench import build_classifier
from spikebench.task import ConfigError, Run
from spikebench.weights.loading import WeightsError
from spikebench_tasks.classification import loop
from spikebench_tasks.classification.module import ClassificationModule
from spikebench_tasks.classification.task import ClassificationTask
from spikebench_tasks.classification.teacher import build_teacher

NANO = "meta_spikeformer_nano"

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Those of a classifier of 10 classes at T = 1."""
    torch.manual_seed(1)
    path = tmp_path / "teacher.pth"
    torch.save({"state_dict": build_classifier(NANO, 10).state_dict()}, path)
    return path


@pytest.fixture
def of_timm(tmp_path: Path) -> Path:
    path = tmp_path / "resnet10t.pth"
    torch.save(timm.create_model("resnet10t", num_classes=10).state_dict(), path)
    return path


def registered(weights: Path, **options) -> dict:
    return {"backbone": NANO, "init_cfg": {"checkpoint": str(weights)}, **options}


def make(**options) -> ClassificationModule:
    module = ClassificationModule(NANO, num_classes=10, **options)
    module._trainer = SimpleNamespace(estimated_stepping_batches=10)
    module.setup("fit")
    return module


class TestBuildTeacher:
    def test_a_registered_one(self, weights: Path):
        teacher = build_teacher(registered(weights), 10)
        expected = build_classifier(NANO, 10)
        expected.load_state_dict(torch.load(weights)["state_dict"])
        images = torch.randn(2, 3, 32, 32)
        assert teacher(images).equal(expected.eval()(images))
        assert not teacher.training
        assert not any(weight.requires_grad for weight in teacher.parameters())

    def test_one_of_timm(self, of_timm: Path):
        described = {"timm": "resnet10t", "init_cfg": {"checkpoint": str(of_timm)}}
        assert build_teacher(described, 10)(torch.randn(2, 3, 32, 32)).shape == (2, 10)

    def test_other_classes_are_one_line(self, weights: Path):
        with pytest.raises(ConfigError, match=f"{NANO} .*10 .*7"):
            build_teacher(registered(weights), 7)

    def test_of_timm_too(self, of_timm: Path):
        described = {"timm": "resnet10t", "arguments": {"num_classes": 10}}
        described["init_cfg"] = {"checkpoint": str(of_timm)}
        with pytest.raises(ConfigError, match="resnet10t .*10 .*7"):
            build_teacher(described, 7)

    def test_of_a_file_of_other_classes(self, of_timm: Path):
        described = {"timm": "resnet10t", "init_cfg": {"checkpoint": str(of_timm)}}
        with pytest.raises(ConfigError, match="resnet10t .*10 .*7"):
            build_teacher(described, 7)

    def test_images_of_a_size_that_it_does_not_take(self, tmp_path: Path):
        name, path = "vit_tiny_patch16_224", tmp_path / "vit.pth"
        torch.save(timm.create_model(name, num_classes=10).state_dict(), path)
        teacher = {"timm": name, "init_cfg": {"checkpoint": str(path)}}
        module = make(distillation=True, teacher=teacher)
        with pytest.raises(ConfigError, match=r"\(32, 32\)"):
            module.training_step((torch.randn(2, 3, 32, 32), torch.tensor([0, 1])), 0)

    def test_an_unknown_one_is_one_line(self):
        with pytest.raises(ConfigError, match="resnet10000") as caught:
            build_teacher({"timm": "resnet10000"}, 10)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("described", "message"),
        [
            ({}, "timm=None and backbone=None"),
            ({"timm": "resnet10t", "backbone": NANO}, f"'resnet10t' and .*'{NANO}'"),
            ({"timm": "resnet10t", "time_steps": 2}, "time_steps=2"),
            ({"backbone": NANO}, f"'{NANO}' .*init_cfg"),
        ],
    )
    def test_a_wrong_description_is_one_line(self, described: dict, message: str):
        with pytest.raises(ConfigError, match=message):
            build_teacher(described, 10)


class TestLoss:
    def test_the_second_head_learns_what_the_teacher_says(self, weights: Path):
        teacher = registered(weights)
        module = make(distillation=True, teacher=teacher, distillation_alpha=0.3)
        module.log = lambda *args, **options: None
        images, labels = torch.randn(4, 3, 32, 32), torch.tensor([1, 2, 3, 4])
        loss = module.training_step((images, labels), 0)
        module.model.apply(
            lambda one: setattr(one, "momentum", 0.0) if hasattr(one, "momentum") else None
        )
        logits, distilled = module(images)
        taught = build_teacher(teacher, 10)(images).argmax(1)
        expected = 0.7 * F.cross_entropy(logits, labels) + 0.3 * F.cross_entropy(distilled, taught)
        torch.testing.assert_close(loss, expected)

    def test_the_teacher_is_neither_trained_nor_saved(self, weights: Path):
        module = make(distillation=True, teacher=registered(weights))
        own = {id(one) for one in module.model.parameters()}
        groups = module.configure_optimizers()["optimizer"].param_groups
        assert {id(one) for group in groups for one in group["params"]} == own
        assert all(key.startswith("model.") for key in module.state_dict())

    def test_a_teacher_needs_a_head(self, weights: Path):
        with pytest.raises(ConfigError, match=r"model\.distillation"):
            make(teacher=registered(weights))


class TestMixup:
    def test_labels_are_mixed_and_smoothed(self):
        module = make(mixup={"mixup_alpha": 0.8}, label_smoothing=0.1)
        module.log = lambda *args, **options: None
        seen = []
        module._loss = lambda images, labels: seen.append(labels) or torch.tensor(0.0)
        images, labels = torch.randn(4, 3, 32, 32), torch.tensor([1, 2, 3, 4])
        module.training_step((images, labels), 0)
        assert seen[0].shape == (4, 10)
        torch.testing.assert_close(seen[0].sum(1), torch.ones(4))
        assert seen[0][0, 9] == pytest.approx(0.01)
        assert module.loss.label_smoothing == 0

    def test_an_odd_batch_is_left_as_it_is(self):
        module = make(mixup={"cutmix_alpha": 1.0})
        module.log = lambda *args, **options: None
        batch = (torch.randn(3, 3, 32, 32), torch.tensor([1, 2, 3]))
        assert module.training_step(batch, 0).isfinite()


class TestRun:
    @pytest.fixture
    def new_run(self, configs, make_run: Callable[..., Run]) -> Callable[..., Run]:
        def make(*overrides: str) -> Run:
            short = ("trainer.max_epochs=1", "data.batch_size=8", *overrides)
            config = ClassificationTask().resolve(configs["classification"], NANO, {}, short)
            return make_run("classification", config, limit=16)

        return make

    def test_one_time_step_into_two_with_a_teacher(self, new_run, weights: Path):
        run = new_run(
            f"+load_from={weights}",
            "+model.distillation=True",
            f'+model.teacher={{"backbone": "{NANO}", "init_cfg": {{"checkpoint": "{weights}"}}}}',
            "model.optimizer.lr=0.0",
        )
        checkpoint = loop.train(run)
        before = torch.load(weights)["state_dict"]
        after = torch.load(checkpoint, weights_only=True)["state_dict"]
        for kind in ("weight", "bias"):
            assert after[f"model.head.{kind}"].equal(before[f"head.{kind}"])
            assert after[f"model.distillation_head.{kind}"].equal(before[f"head.{kind}"])
        assert loop.evaluate(run, checkpoint).metrics.keys() == {"top1", "top5", "ece"}

    def test_weights_that_do_not_fit_are_named(self, new_run, tmp_path: Path):
        path = tmp_path / "other.pth"
        torch.save(build_classifier(NANO, 7).state_dict(), path)
        with pytest.raises(WeightsError, match=f"load_from {path}: .*head"):
            loop.train(new_run(f"+load_from={path}"))

    def test_who_goes_on_does_not_start_from_them_again(self, new_run, tmp_path: Path):
        run = new_run()
        first = loop.train(run)
        run.config["load_from"] = str(tmp_path / "gone.pth")
        assert loop.train(run) == first

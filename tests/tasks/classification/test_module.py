from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import BasePredictionWriter
from torch.nn import functional as F

from spikebench.registry import UnknownNameError
from spikebench.task import ConfigError
from spikebench_tasks.classification.datasets.digits import DigitsDataModule
from spikebench_tasks.classification.module import ClassificationModule
from spikebench_tasks.classification.options import (
    Augmentation,
    CropAugmentation,
    MixupConfig,
    OptimizerConfig,
    typed,
)


def make(steps: int = 100, **options) -> ClassificationModule:
    module = ClassificationModule("meta_spikeformer_nano", num_classes=10, **options)
    module._trainer = SimpleNamespace(estimated_stepping_batches=steps)
    return module


@pytest.mark.parametrize("time_steps", [1, 3])
def test_images_and_event_frames_become_logits(time_steps: int):
    module = make(time_steps=time_steps)
    assert module.model.time_steps == time_steps
    assert module(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert module(torch.randn(2, time_steps, 3, 32, 32)).shape == (2, 10)


def test_arguments_are_those_of_the_backbone():
    with pytest.raises(TypeError, match="no_such_argument"):
        make(arguments={"no_such_argument": 1})


def test_what_is_one_dimensional_is_not_decayed():
    module = make(optimizer={"opt": "adamw", "lr": 1e-3, "weight_decay": 0.05})
    optimizer = module.configure_optimizers()["optimizer"]
    decay = {
        id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]
    }
    parameters = list(module.model.parameters())
    assert decay.keys() == {id(p) for p in parameters}
    assert {p.dim() for p in parameters} >= {1, 2, 4}
    for parameter in parameters:
        assert decay[id(parameter)] == (0 if parameter.dim() == 1 else 0.05)


def test_the_optimiser_is_the_one_asked_for():
    module = make(optimizer={"opt": "sgd", "lr": 0.3, "momentum": 0.8})
    optimizer = module.configure_optimizers()["optimizer"]
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.defaults["momentum"] == 0.8
    assert optimizer.param_groups[0]["initial_lr"] == 0.3


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_learning_rate_rises_and_falls_to_zero():
    made = make(steps=100, warmup=0.2, optimizer={"opt": "sgd", "lr": 1.0}).configure_optimizers()
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    assert made["lr_scheduler"]["interval"] == "step"
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    rates.append(optimizer.param_groups[0]["lr"])
    assert rates[0] == pytest.approx(0.01)
    assert rates[10] == pytest.approx((0.01 + 1) / 2)
    assert rates[20] == pytest.approx(1)
    assert rates[60] == pytest.approx(0.5)  # half of the cosine
    assert rates[100] == pytest.approx(0, abs=1e-9)
    assert rates[:20] == sorted(rates[:20])
    assert rates[20:] == sorted(rates[20:], reverse=True)


def test_the_cosine_ends_at_the_least_rate():
    configured = make(optimizer={"opt": "sgd", "lr": 1.0}, min_lr=0.2).configure_optimizers()
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    for _ in range(100):
        optimizer.step()
        schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.2)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_batch_of_one_is_mixed_with_itself():
    module = make(mixup={"mixup_alpha": 0.2}, label_smoothing=0.2).eval()
    module.log = lambda *_, **__: None
    images, labels = torch.randn(1, 3, 32, 32), torch.tensor([3])
    expected = F.cross_entropy(module(images), labels, label_smoothing=0.2)
    torch.testing.assert_close(module.training_step((images, labels), 0), expected)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_loss_is_the_smoothed_cross_entropy():
    module = make(label_smoothing=0.2)
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([1, 2, 3, 9])
    module.eval()
    expected = F.cross_entropy(module(images), labels, label_smoothing=0.2)
    module.log = lambda *_, **__: None
    torch.testing.assert_close(module.training_step((images, labels), 0), expected)


def test_top5_needs_five_classes():
    assert set(make().test_metrics) == {"top1", "top5", "ece"}
    few = ClassificationModule("meta_spikeformer_nano", num_classes=4)
    assert set(few.test_metrics) == {"top1", "ece"}


def test_accuracies_are_shares_of_images_and_not_of_classes():
    metrics = make().test_metrics
    logits = torch.eye(10)[torch.tensor([0, 0, 0, 1])]
    metrics.update(logits[:3], torch.tensor([0, 0, 0]))
    metrics.update(logits[3:], torch.tensor([9]))
    assert metrics.compute()["top1"].item() == pytest.approx(3 / 4)  # the mean of classes is 1/2


def test_metrics_of_testing_and_validation_are_apart():
    module = make()
    module.log_dict = lambda *_, **__: None
    batch = torch.randn(2, 3, 32, 32), torch.tensor([0, 1])
    module.validation_step(batch, 0)
    assert module.test_metrics["top1"].update_count == 0
    assert module.val_metrics["top1"].update_count == 1


def test_an_output_less_than_there_are_time_steps_is_noticed(monkeypatch: pytest.MonkeyPatch):
    module = make(time_steps=3)
    module.log = module.log_dict = lambda *_, **__: None
    over_time = module.model.over_time
    monkeypatch.setattr(module.model, "over_time", lambda images: over_time(images)[1:])
    with pytest.raises(ValueError, match="zip"):
        module.test_step((torch.randn(2, 3, 32, 32), torch.tensor([0, 1])), 0)


def test_options_of_a_subclass_are_refused():
    """Its further fields would be ignored."""
    with pytest.raises(ConfigError, match=r"CropAugmentation\(.*Augmentation"):
        typed(Augmentation, CropAugmentation(), "data.augment")


def test_layers_near_the_image_learn_more_slowly():
    module = make(optimizer={"opt": "adamw", "lr": 0.1, "layer_decay": 0.5})
    configured = module.configure_optimizers()
    names = {id(weight): name for name, weight in module.model.named_parameters()}
    rates = {
        names[id(weight)]: group["initial_lr"]
        for group in configured["optimizer"].param_groups
        for weight in group["params"]
    }
    assert rates.keys() == set(names.values())
    assert rates["head.weight"] == pytest.approx(0.1)
    ordered = [rates[name] for name in names.values()]
    assert ordered == sorted(ordered)
    assert ordered[0] == pytest.approx(0.1 * 0.5 ** (len(set(ordered)) - 1))
    assert len(set(ordered)) > 8


class TestForms:
    """What runs otherwise, and gives the same."""

    def step(self, batch, **options) -> tuple[torch.Tensor, ClassificationModule]:
        torch.manual_seed(0)
        module = make(**options).double()  # in which hardly a spike lies so near to its threshold
        module.log = lambda *_, **__: None
        loss = module.training_step(batch, 0)
        loss.backward()
        return loss, module

    @pytest.mark.parametrize(
        "options",
        [
            {"channels_last": True},
            pytest.param({"compiled": True}, marks=pytest.mark.slow),
        ],
    )
    def test_losses_and_gradients_are_the_same(self, options):
        batch = torch.randn(4, 3, 32, 32).double(), torch.tensor([1, 2, 3, 9])
        plain, module = self.step(batch)
        other, changed = self.step(batch, **options)
        torch.testing.assert_close(other, plain)
        assert changed.state_dict().keys() == module.state_dict().keys()
        gradients = {name: weight.grad for name, weight in module.named_parameters()}
        assert any((gradient != 0).any() for gradient in gradients.values())
        for name, weight in changed.named_parameters():
            torch.testing.assert_close(weight.grad, gradients[name], msg=name)

    def test_channels_are_innermost(self):
        module = make(channels_last=True)
        read = []
        module.model.register_forward_pre_hook(lambda model, inputs: read.append(*inputs))
        module(torch.randn(2, 3, 32, 32))
        assert read[0].is_contiguous(memory_format=torch.channels_last)
        assert module(torch.randn(2, 1, 3, 32, 32)).shape == (2, 10)  # event frames
        four = [weight for weight in module.model.parameters() if weight.dim() == 4]
        assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in four)


def quiet_trainer(**options) -> L.Trainer:
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    return L.Trainer(accelerator="cpu", **dict.fromkeys(off, False), **options)


class TestOptions:
    def test_dataclasses_and_dictionaries_are_the_same(self):
        options = {"opt": "sgd", "lr": 0.3, "momentum": 0.8}
        first = make(optimizer=options, mixup={"cutmix_alpha": 1.0})
        other = make(optimizer=OptimizerConfig(**options), mixup=MixupConfig(cutmix_alpha=1.0))
        assert first.optimizer == other.optimizer
        assert vars(first.mixup) == vars(other.mixup)

    @pytest.mark.parametrize(
        ("options", "wrong", "meant"),
        [
            ({"optimizer": {"wieght_decay": 0.1}}, "wieght_decay", "'weight_decay'"),
            ({"optimizer": {"opt": "adamww"}}, "adamww", "'adamw'"),
            ({"mixup": {"mixup_alfa": 0.1}}, "mixup_alfa", "'mixup_alpha'"),
            ({"eventmix": {"probability": 0.1}}, "probability", "'prob'"),
        ],
    )
    def test_a_misspelt_one_is_one_line_that_suggests_another(self, options, wrong, meant):
        with pytest.raises(UnknownNameError, match=f"{wrong}.*did you mean.*{meant}") as caught:
            make(**options).configure_optimizers()
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("optimizer", "wrong"),
        [
            ({"lr": "fast"}, "model.optimizer.lr is 'fast'"),
            ({"opt": "adamw", "momentum": 0.8}, "momentum is 0.8"),
            ({"opt": "sgd", "options": {"trust_clip": True}}, "'trust_clip': True"),
        ],
    )
    def test_one_that_has_no_effect_or_sense_is_one_line(self, optimizer: dict, wrong: str):
        with pytest.raises(ConfigError, match=wrong) as caught:
            make(optimizer=optimizer).configure_optimizers()
        assert "\n" not in str(caught.value)

    def test_further_options_reach_the_optimiser(self):
        module = make(optimizer={"opt": "lamb", "options": {"trust_clip": True}})
        assert module.configure_optimizers()["optimizer"].defaults["trust_clip"] is True


@pytest.mark.filterwarnings("ignore")
class TestInATrainerOfOnesOwn:
    """What people do with any LightningModule."""

    def test_a_checkpoint_loads_without_the_module_s_arguments(self, tmp_path: Path):
        module = make(
            time_steps=2,
            arguments={"embed_dims": (16, 32, 64, 96)},
            optimizer=OptimizerConfig(lr=0.1, layer_decay=0.5),
            mixup={"mixup_alpha": 0.2},
        )
        module._trainer = None
        trainer = quiet_trainer(max_epochs=1, limit_train_batches=1)
        trainer.fit(module, DigitsDataModule(batch_size=4))
        path = tmp_path / "a.ckpt"
        trainer.save_checkpoint(path)
        loaded = ClassificationModule.load_from_checkpoint(path, weights_only=True)
        assert loaded.hparams == module.hparams
        assert loaded.optimizer == module.optimizer
        images = torch.randn(2, 3, 32, 32)
        assert loaded.eval()(images).equal(module.eval()(images))

    def test_predictions_are_probabilities_with_the_index_of_each_image(self):
        class Keeps(BasePredictionWriter):
            def write_on_batch_end(self, trainer, module, prediction, indices, *batch):
                kept.extend(zip(indices, prediction, strict=True))

        kept: list = []
        module = ClassificationModule("meta_spikeformer_nano", num_classes=10).eval()
        data = DigitsDataModule(batch_size=4, limit=10)
        trainer = quiet_trainer(callbacks=[Keeps("batch")])
        batches = trainer.predict(module, data)
        assert [len(batch) for batch in batches] == [4, 4, 2]
        images = torch.stack([image for image, _ in data.test])
        expected = module(images).softmax(1)
        torch.testing.assert_close(torch.cat(batches), expected)
        assert [index for index, _ in kept] == list(range(10))
        torch.testing.assert_close(torch.stack([found for _, found in kept]), expected)

    def test_accuracies_by_time_steps_are_logged(self):
        module = ClassificationModule("meta_spikeformer_nano", num_classes=10, time_steps=3)
        (logged,) = quiet_trainer().test(module, DigitsDataModule(limit=40), verbose=False)
        assert {f"top1_t{step}" for step in (1, 2, 3)} < logged.keys()
        assert logged["top1_t3"] == logged["top1"]

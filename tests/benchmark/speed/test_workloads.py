from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from spikebench.energy.profile import profile_operations
from spikebench.neurons import use_backend
from spikebench.speed import workloads
from spikebench.speed.record import Contender, Settings
from spikebench.speed.worker import MOST_BATCHES, Worker, answer

SETTINGS = Settings(
    backbone_name="meta_spikeformer_nano",
    time_steps=2,
    batch_size=3,
    image_size=32,
    num_classes=10,
    device="cpu",
)


@pytest.fixture(autouse=True)
def reference():
    with use_backend("reference"):
        yield


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("prepared")
    return folder, workloads.prepare(SETTINGS, folder)


def contender(**fields) -> Contender:
    return Contender(**{"neurons": "reference", **fields})


class TestPreparation:
    def test_gives_the_facts_of_the_model(self, prepared):
        folder, facts = prepared
        model = workloads._classifier(SETTINGS)
        model.load_state_dict(load_file(folder / "weights.safetensors"))
        images, _ = workloads._batch(SETTINGS)
        report = profile_operations(model, [images[:1]])
        assert facts == {
            "parameters": sum(weight.numel() for weight in model.parameters()),
            "dense_macs": report.dense_macs,
            "firing_rate": report.firing_rate,
        }

    def test_settles_the_norms_so_that_neurons_fire(self, prepared):
        folder, facts = prepared
        assert 0.05 < facts["firing_rate"] < 0.95
        model = workloads._classifier(SETTINGS)
        model.load_state_dict(load_file(folder / "weights.safetensors"))
        images, _ = workloads._batch(SETTINGS)
        with torch.no_grad():
            stem = model.backbone.stages[0].downsample
            normed = stem.norm(stem.conv(images))
        assert torch.allclose(normed.mean((0, 2, 3)), stem.norm.bias, atol=1e-4)
        assert stem.norm.momentum == 0.1

    def test_every_process_sees_the_same(self, prepared, tmp_path: Path):
        folder, facts = prepared
        assert workloads.prepare(SETTINGS, tmp_path) == facts
        first, second = (load_file(one / "weights.safetensors") for one in (folder, tmp_path))
        assert all(torch.equal(first[name], second[name]) for name in first)

    def test_says_which_images_do_not_fit(self, tmp_path: Path):
        worker = Worker(None, SETTINGS.model_copy(update={"image_size": 40}), tmp_path)
        assert answer(worker, "prepare") == {
            "error": "input of 40x40 pixels; both must be divisible by 16: pad or resize"
        }


class TestModel:
    @pytest.mark.parametrize("channels_last", [False, True])
    def test_spikes_are_compared_with_the_reference(self, prepared, channels_last: bool):
        workload = workloads.build(contender(channels_last=channels_last), SETTINGS, prepared[0])
        share = workloads.spikes_equal(workload, prepared[0])
        assert share is not None
        assert share > 0.999 if channels_last else share == 1.0

    @pytest.mark.parametrize("form", ["dense", "paper"])
    def test_deploy_forms_spike_alike(self, prepared, form: str):
        workload = workloads.build(contender(form=form), SETTINGS, prepared[0])
        share = workloads.spikes_equal(workload, prepared[0])
        assert share is not None
        assert share > 0.99

    def test_a_spike_that_differs_is_counted(self, prepared, tmp_path: Path):
        spikes = torch.load(prepared[0] / "spikes.pt")
        for layer in spikes:
            layer.zero_()
        torch.save(spikes, tmp_path / "spikes.pt")
        workload = workloads.build(contender(), SETTINGS, prepared[0])
        share = workloads.spikes_equal(workload, tmp_path)
        rate = sum(float(one.sum()) for one in workload.spikes()) / sum(map(torch.numel, spikes))
        assert share == pytest.approx(1 - rate)
        torch.save(spikes[1:], tmp_path / "spikes.pt")
        with pytest.raises(ValueError, match="neuron layers"):
            workloads.spikes_equal(workload, tmp_path)

    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    def test_a_training_step_moves_every_weight(self, prepared, precision: str, monkeypatch):
        class Noted(torch.optim.AdamW):
            def __init__(self, params, **options):
                super().__init__(params, **options)
                weights.extend(self.param_groups[0]["params"])

        weights: list[torch.Tensor] = []
        monkeypatch.setattr(torch.optim, "AdamW", Noted)
        training = contender(mode="train", precision=precision)
        workload = workloads.build(training, SETTINGS, prepared[0])
        before = [weight.detach().clone() for weight in weights]
        workload.step()
        assert len(before) > 100
        assert not any(torch.equal(a, b) for a, b in zip(before, weights, strict=True))

    def test_gradient_checkpointing_is_turned_on(self, prepared, monkeypatch):
        calls = []
        monkeypatch.setattr(
            "spikebench.backbones.meta_spikeformer.MetaSpikeformer.set_grad_checkpointing",
            lambda self, enable=True: calls.append(enable),
        )
        workloads.build(contender(mode="train"), SETTINGS, prepared[0])
        assert True not in calls
        workloads.build(contender(mode="train", grad_checkpointing=True), SETTINGS, prepared[0])
        assert calls[-1] is True


@pytest.mark.parametrize("mode", ["inference", "train"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_layer_alone_sees_what_it_would_in_a_model(monkeypatch, mode: str, precision: str):
    seen = []
    monkeypatch.setattr(workloads, "LAYER_SHAPE", (4, 8, 8))
    monkeypatch.setattr("spikebench.neurons.LIF.forward", lambda self, x: seen.append(x) or x * 1.0)
    step = workloads.build(
        contender(subject="lif", mode=mode, precision=precision), SETTINGS, Path()
    ).step
    step()
    step()
    assert len(seen) == 2
    assert seen[0].shape == (2, 3, 4, 8, 8)
    assert seen[0].dtype == getattr(torch, precision)
    assert (seen[0].grad is not None) == (mode == "train")


def test_a_turn_is_at_least_one_batch_and_ends_in_time(prepared, monkeypatch):
    worker = Worker(contender(), SETTINGS, prepared[0])
    built = worker.build()
    assert len(built["warm_up_s"]) == 2
    assert built["model_memory_bytes"] > 0
    monkeypatch.setattr("spikebench.speed.worker.TURN_SECONDS", 0.0)
    turn = worker.measure()
    assert len(turn["seconds"]) == 1
    assert turn["peak_memory_bytes"] > 0
    monkeypatch.setattr("spikebench.speed.worker.TURN_SECONDS", 60.0)
    calls: list[None] = []
    monkeypatch.setattr(worker.workload, "step", lambda: calls.append(None))
    assert len(worker.measure()["seconds"]) == MOST_BATCHES
    assert len(calls) == 1 + MOST_BATCHES  # the first is not timed
    assert worker.compare() == {"spikes_equal": 1.0}


def test_an_error_is_an_answer_of_one_line(prepared, monkeypatch):
    def fail() -> None:
        raise RuntimeError("out of\nmemory")

    worker = Worker(contender(), SETTINGS, prepared[0])
    worker.workload = workloads.Workload(fail)
    error = answer(worker, "measure")["error"]
    assert error.startswith("RuntimeError: out of memory (test_workloads.py:")

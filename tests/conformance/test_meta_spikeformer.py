"""Meta-SpikeFormer against figures of the published code, on weights that anyone can rebuild."""

from __future__ import annotations

import pytest
import torch

from spikebench import build_classifier, load_weights
from spikebench.neurons import LIF
from spikebench.weights.meta_spikeformer import from_published

EXACT = {"rel": 1e-6, "abs": 0}


@pytest.fixture(scope="module", params=[1, 4], ids=["T1", "T4"])
def observed(request: pytest.FixtureRequest, golden):
    """The published figures, our logits, and what each of our modules gave, by its name."""
    published = golden.outputs[request.param]
    model = golden.classifier(request.param)
    outputs = {}
    for name, module in model.named_modules():
        module.register_forward_hook(lambda m, args, out, name=name: outputs.update({name: out}))
    with torch.no_grad():
        logits = model(golden.input(**published["input"]))
    return published, logits, outputs


def test_logits(observed):
    published, logits, _ = observed
    assert logits.dtype == torch.float64
    assert logits.shape == (2, 1000)
    for found, expected in zip(logits, published["logits_first8"], strict=True):
        assert found[:8].tolist() == pytest.approx(expected, **EXACT)
    assert logits.norm().item() == pytest.approx(published["logits_l2"], **EXACT)
    assert logits.argmax(1).tolist() == published["logits_argmax"]


def test_stages(observed):
    published, _, outputs = observed
    assert len(published["stages"]) == 6
    for name, expected in published["stages"].items():
        found = outputs[from_published(name)]
        assert list(found.shape) == expected["shape"], name
        statistics = {"mean": found.mean(), "std": found.std(), "l2": found.norm()}
        for what, value in statistics.items():
            assert value.item() == pytest.approx(expected[what], **EXACT), f"{what} of {name}"


def test_the_maps_are_what_the_last_blocks_give(observed):
    _, _, outputs = observed
    for stage, features in enumerate(outputs["backbone"]):
        assert torch.equal(features, outputs[f"backbone.stages.{stage}"])


def test_firing_rates_of_all_77_layers(observed, golden):
    published, _, outputs = observed
    model = golden.classifier(published["T"])
    layers = {name for name, module in model.named_modules() if isinstance(module, LIF)}
    expected = {from_published(name): rate for name, rate in published["firing_rates"].items()}
    assert len(expected) == 77
    assert expected.keys() == layers
    for name, rate in expected.items():
        spikes = outputs[name]
        assert torch.equal(spikes, spikes.bool().double()), f"{name} gives more than 0 and 1"
        assert spikes.mean().item() == pytest.approx(rate, **EXACT), name


@pytest.mark.parametrize("distillation", [False, True])
def test_published_keys_map_one_to_one(golden, distillation: bool):
    published = golden.weights()
    assert len(published) == 825
    if distillation:
        published["head_kd.weight"] = torch.zeros(1000, 360)
        published["head_kd.bias"] = torch.zeros(1000)
    with torch.device("meta"):
        own = build_classifier(golden.name, 1000, distillation=distillation).state_dict()
    renamed = {from_published(key): value for key, value in published.items()}
    assert len(renamed) == len(published)
    assert renamed.keys() == own.keys()
    for key, value in renamed.items():
        assert [n for n in value.shape if n > 1] == [n for n in own[key].shape if n > 1], key


def test_every_published_tensor_arrives(golden):
    published = golden.weights()
    model = build_classifier(golden.name, 1000).double()
    state = load_weights(model, published).state_dict()
    for key, value in published.items():
        assert torch.equal(state[from_published(key)].flatten(), value.flatten()), key

from __future__ import annotations

import builtins

import pytest
import torch
from torch import nn

from spikebench.backbones import build_classifier
from spikebench.errors import UserError
from spikebench.neurons import LIF, use_backend
from spikebench.speed import spikingjelly


def test_where_it_is_missing_one_line_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(spikingjelly, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="spikingjelly>=2"):
        spikingjelly.peers("cpu")


def test_it_is_not_imported_before_it_is_needed(monkeypatch: pytest.MonkeyPatch):
    imported = builtins.__import__

    def refuse(name: str, *others):
        assert not name.startswith("spikingjelly"), name
        return imported(name, *others)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ValueError, match="Linear"):
        spikingjelly.replace_neurons(nn.Linear(2, 2))


class TestReplacement:
    @pytest.fixture(autouse=True)
    def installed(self):
        pytest.importorskip("spikingjelly", reason="SpikingJelly is not installed")

    def test_leaves_none_of_ours_and_keeps_the_weights(self):
        model = build_classifier("meta_spikeformer_nano", 10, 2).eval()
        images = torch.randn(2, 3, 32, 32)
        weights = {name: weight.clone() for name, weight in model.state_dict().items()}
        with torch.no_grad(), use_backend("reference"):
            expected = model(images)
            layers = sum(isinstance(module, LIF) for module in model.modules())
            assert spikingjelly.replace_neurons(model) is model
            assert not any(isinstance(module, LIF) for module in model.modules())
            assert sum(hasattr(module, "v_threshold") for module in model.modules()) == layers
            for _ in range(2):  # after a reset it begins anew
                spikingjelly.reset(model)
                assert torch.equal(model(images), expected)
        assert all(torch.equal(weights[name], w) for name, w in model.state_dict().items())

    def test_refuses_a_neuron_without_a_counterpart(self):
        with pytest.raises(ValueError, match="learnt"):
            spikingjelly.replace_neurons(nn.Sequential(LIF(), LIF(learn_threshold=True)))

    def test_runs_here(self):
        assert spikingjelly.peers("cpu") == ["spikingjelly-torch"]

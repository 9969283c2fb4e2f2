from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from spikebench import build_backbone
from spikebench.backbones.options import backbone_options
from spikebench.neurons import IF, ILIF, Neuron, neuron_factory, spike_levels
from spikebench.registry import NEURONS, UnknownNameError


@pytest.mark.parametrize("name", NEURONS.names())
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_the_membrane_is_float32(name: str, dtype: torch.dtype):
    torch.manual_seed(0)
    neuron = neuron_factory(name, 4)()
    x = (1.2 * torch.randn(4, 3, 500) + 0.5).to(dtype)
    with torch.autocast("cpu", dtype=dtype):
        spikes = neuron(x)
    assert spikes.dtype == dtype
    assert torch.equal(spikes.float(), neuron(x.float()))


@pytest.mark.parametrize("name", NEURONS.names())
def test_every_neuron_keeps_its_range_and_any_layout(name: str):
    torch.manual_seed(0)
    neuron = neuron_factory(name, 4)()
    x = 2 * torch.randn(4, 2, 6, 5, 3).transpose(2, 4)
    spikes = neuron(x)
    assert spikes.shape == x.shape
    assert set(spikes.unique().tolist()) <= set(range(neuron.spike_levels + 1))
    assert torch.equal(spikes, neuron(x.contiguous()))
    assert neuron(x[:, :0]).shape == (4, 0, 3, 5, 6)


def test_the_factory_builds_by_name_or_callable():
    assert neuron_factory("lif")(threshold=0.5).threshold == 0.5
    assert neuron_factory(IF)().dynamics.tau is None
    with pytest.raises(UnknownNameError, match="ilfi"):
        neuron_factory("ilfi")


def test_a_neuron_of_another_package_works_in_a_backbone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    info = tmp_path / "sharp-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sharp\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[spikebench.neurons]\nsharp = sharp_neurons:Sharp\n")
    (tmp_path / "sharp_neurons.py").write_text(
        "from spikebench.neurons import LIF\nclass Sharp(LIF):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(NEURONS, "_entries", dict(NEURONS._entries))
    monkeypatch.delitem(vars(NEURONS), "_points", raising=False)

    listed = {option.name: option.values for option in backbone_options("meta_spikeformer_nano")}
    assert "sharp" in listed["neuron"].split(", ")
    model = build_backbone("meta_spikeformer_nano", neuron="sharp")
    neurons = [module for module in model.modules() if isinstance(module, Neuron)]
    assert {type(neuron).__name__ for neuron in neurons} == {"Sharp"}
    vars(NEURONS).pop("_points")


class TestSpikeLevels:
    def test_they_are_declared(self):
        class Declared(nn.Module):
            spike_levels = 7

        assert spike_levels(ILIF(levels=3)) == 3
        assert spike_levels(IF()) == 1
        assert spike_levels(Declared()) == 7
        assert spike_levels(nn.ReLU()) is None

    def test_those_of_spikingjelly_are_known(self):
        neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
        surrogate = pytest.importorskip("spikingjelly.activation_based.surrogate")
        assert spike_levels(neuron.LIFNode()) == 1
        assert spike_levels(neuron.PSN(T=4)) == 1
        assert spike_levels(neuron.NonSpikingLIFNode()) is None
        integer = neuron.ILIFNode(surrogate_function=surrogate.MultiLevelSpikeCount(6))
        assert spike_levels(integer) == 6

    def test_spikingjelly_is_not_imported_for_it(self, monkeypatch: pytest.MonkeyPatch):
        for name in [name for name in sys.modules if name.startswith("spikingjelly")]:
            monkeypatch.delitem(sys.modules, name)
        assert spike_levels(nn.ReLU()) is None
        assert not [name for name in sys.modules if name.startswith("spikingjelly")]

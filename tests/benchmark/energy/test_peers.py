"""Ours against the counters of others on one model; and their faults, as they are installed.

NeuroBench is not among our dependencies: `peers.py` says how to install it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests import forkserver
from tests.benchmark.energy import peers
from tests.benchmark.energy.models import Call, MatMul, spikes

pytestmark = pytest.mark.slow
counters = pytest.importorskip("spikingjelly.activation_based.op_counter")

NANO = "meta_spikeformer_nano"


@pytest.fixture
def neurobench():
    return pytest.importorskip("neurobench", reason="NeuroBench is not installed; see peers.py")


def spikingjelly(model, x):
    """Synaptic operations, MACs and additions, as SpikingJelly counts them."""
    found = [counters.SynOpCounter(), counters.MACCounter(), counters.ACCounter()]
    with torch.no_grad(), counters.DispatchCounterMode(found):
        model(x)
    return [counter.get_total() for counter in found]


@pytest.mark.parametrize("neurons", ["spikebench", "spikingjelly"])
def test_all_count_the_same_weights_that_spikes_meet(neurobench, neurons):
    model, images = peers.example(NANO, 4, 2, 64, neurons)
    found = peers.compare(model, images, rounds=1).found
    report = found[peers.OURS]
    spiking, others, products = (peers.exact(r, 2) for r in peers.groups(report).values())
    theirs, macs = found[peers.SPIKINGJELLY]
    assert theirs == found[peers.SYNOPS]
    assert spiking == theirs["convolution"] + theirs["addmm"]
    assert others < macs["convolution"] <= found[peers.ENERGY]["mac"]
    assert found[peers.ENERGY]["synop"] == sum(theirs.values())
    of_neurobench = found[peers.NEUROBENCH]
    assert of_neurobench["Effective_ACs"] == pytest.approx(spiking, rel=1e-6)
    assert of_neurobench["Effective_MACs"] == pytest.approx(others, rel=1e-6)
    assert of_neurobench["Dense"] == pytest.approx(peers.dense_without_padding(report), rel=1e-6)
    assert min(spiking, others, products) > 0


@pytest.mark.parametrize("name", [NANO, "meta_spikeformer_15m"])
def test_ours_is_as_fast_as_asked(neurobench, name):
    comparison = peers.compare(*peers.example(name, 4, 1, 224), rounds=3)
    ratios = {peer: comparison.ratio(peer, peers.OURS) for peer in peers.ASKED}
    assert all(ratios[peer] >= asked for peer, asked in peers.ASKED.items()), ratios


def test_the_script_prints_the_comparison(neurobench):
    done = forkserver.run(
        [sys.executable, peers.__file__, "--image-size=32", "--time-steps=1", "--rounds=1"],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        cwd=Path(peers.__file__).parents[3],
    )
    assert done.returncode == 0, done.stderr
    for name in (peers.PLAIN, peers.OURS, *peers.MISSED):
        assert name in done.stdout
    assert "NeuroBench is not installed" not in done.stdout


class TestNeuroBench:
    @pytest.fixture(autouse=True)
    def installed(self, neurobench):
        pass

    def test_misses_attention_and_functional_operations(self):
        x = spikes(2, 4, 4)
        models = [Call(lambda self, x: x @ x), Call(lambda self, x: F.linear(x, torch.ones(3, 4)))]
        for model in models:
            assert set(peers.neurobench(model, x).values()) == {0}

    def test_turns_an_error_into_zero(self):
        from neurobench.metrics.manager.workload_manager import WorkloadMetricManager
        from neurobench.metrics.workload import SynapticOperations
        from neurobench.models import TorchModel

        model = TorchModel(nn.Sequential(nn.LSTM(4, 8)))
        manager = WorkloadMetricManager([SynapticOperations])
        manager.register_hooks(model)
        x = torch.rand(3, 2, 4)
        assert manager.run_metrics(model, model(x), (x, x), 2, 2) == {"SynapticOperations": 0.0}

    def test_runs_each_layer_three_times(self):
        model, x = nn.Sequential(nn.Conv2d(3, 4, 3)), spikes(2, 3, 8, 8)
        with FlopCounterMode(display=False) as plain:
            model(x)
        with FlopCounterMode(display=False) as counted:
            peers.neurobench(model, x)
        assert counted.get_total_flops() == 3 * plain.get_total_flops()

    def test_does_not_know_neurons_by_themselves(self):
        from neurobench.models import TorchModel

        model, _ = peers.example(NANO, 1, 1, 32, "spikingjelly")
        assert TorchModel(model).activation_layers() == []

    def test_rounds(self):
        x = torch.ones(1, 2**12 + 1)
        found = peers.neurobench(nn.Sequential(nn.Linear(2**12 + 1, 2**13 + 1)), x)
        assert found["Effective_ACs"] != (2**12 + 1) * (2**13 + 1)


class TestSpikingJelly:
    def test_takes_scaled_spikes_for_real_values(self):
        synops, macs, _ = spikingjelly(nn.Linear(6, 5), 0.25 * spikes(2, 6))
        assert (synops, macs) == (0, 2 * 6 * 5)

    def test_takes_silence_for_spikes(self):
        _, macs, _ = spikingjelly(nn.Linear(6, 5), torch.zeros(2, 6))
        assert macs == 0

    def test_counts_additions_of_norms(self):
        x = spikes(2, 3, 4, 4)
        synops, _, additions = spikingjelly(nn.Sequential(nn.BatchNorm2d(3).eval()), x)
        assert synops == 0
        assert additions > x.numel()

    def test_counts_zeros_that_spikes_meet_in_a_product(self):
        x, y = spikes(1, 4, 4), 2 * spikes(1, 4, 4, seed=1)
        counter = counters.SynOpCounter()
        with counters.DispatchCounterMode([counter]):
            MatMul()(x, y)
        assert counter.get_total() == 4 * x.sum() > (x @ (y != 0).float()).sum()

"""What NeuroBench 2.3, syops 0.0.5 and SpikingJelly 2.0 get wrong, as cases that ours gets right.

Every expected figure is computed here in another way: weights of one on the mask of non-zeros, in
float64, or by hand. The faults themselves are shown in `tests/benchmark/energy/test_peers.py`.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from spikebench import build_classifier, profile_operations
from spikebench.energy.operations import OperationReport, OperationRow
from spikebench.neurons import ILIF
from spikebench.speed.spikingjelly import replace_neurons, reset


class Call(nn.Module):
    """A model from a function of its weight and its input."""

    def __init__(self, function: Callable[..., Tensor], *shape: int) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.randn(shape)) if shape else None

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x) if self.weight is None else self.function(x, self.weight)


def spikes(*shape: int, rate: float = 0.3, seed: int = 0) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < rate).float()


def mask(x: Tensor) -> Tensor:
    return (x != 0).double()


def only_row(model: nn.Module, *batches: Tensor, **options) -> OperationRow:
    (row,) = profile_operations(model, batches, **options).rows
    return row


def rows_of(report: OperationReport, kind: str) -> list[OperationRow]:
    return [row for row in report.rows if row.kind == kind]


def products(q: Tensor, k: Tensor, v: Tensor) -> float:
    """Pairs of non-zeros that meet in both products of attention, per image."""
    scores = mask(q) @ mask(k).mT
    return float(scores.sum() + (mask(q @ k.mT) @ mask(v)).sum()) / len(q)


class TestNeuroBench:
    @pytest.mark.parametrize(
        "attend",
        [
            lambda q, k, v: (q @ k.mT) @ v,
            lambda q, k, v: torch.bmm(torch.bmm(q, k.mT), v),
            lambda q, k, v: torch.matmul(q, k.transpose(1, 2)).matmul(v),
            lambda q, k, v: torch.einsum("bnm,bmd->bnd", torch.einsum("bnd,bmd->bnm", q, k), v),
        ],
        ids=["@", "bmm", "matmul", "einsum"],
    )
    def test_both_products_of_attention_are_counted(self, attend):
        qkv = spikes(3, 6, 12)
        q, k, v = qkv.chunk(3, dim=-1)
        report = profile_operations(Call(lambda x: attend(*x.chunk(3, dim=-1))), [qkv])
        assert [row.kind for row in report.rows] == ["matmul", "matmul"]
        assert report.dense_macs == 2 * 6 * 6 * 4
        assert report.synaptic_operations == pytest.approx(products(q, k, v), rel=1e-15)

    def test_fused_attention_hides_none(self):
        x = spikes(2, 5, 4)
        report = profile_operations(
            Call(lambda x: F.scaled_dot_product_attention(x, x, x)), [x[:, None]]
        )
        first, second = report.rows
        assert first.exact_synaptic_operations * 2 == (mask(x) @ mask(x).mT).sum()
        assert second.exact_synaptic_operations * 2 == 5 * mask(x).sum()  # softmax has no zero

    def test_an_error_is_raised_and_no_zero(self):
        model = nn.Sequential(nn.Linear(4, 4), Call(lambda x: x.view(7)))
        with pytest.raises(RuntimeError, match="shape"):
            profile_operations(model, [spikes(2, 4)])
        with pytest.raises(TypeError, match="int"):
            profile_operations(nn.Linear(4, 4), [3])
        with pytest.raises(ValueError, match="no image to count"):
            profile_operations(nn.Linear(4, 4), [])

    def test_layers_of_an_unknown_kind_are_no_zero(self):
        recurrent = nn.LSTM(4, 8, batch_first=True)
        report = profile_operations(recurrent, [torch.randn(2, 5, 4)])
        work = 5 * 4 * 8 * (4 + 8)
        unknown = [one for one in report.uncounted if one.reason == "no rule"]
        assert unknown or report.dense_macs == work
        assert all(one.multiplications is None or one.multiplications > 0 for one in unknown)

    def test_no_layer_runs_twice_and_none_is_copied(self):
        class Uncopied(nn.Conv2d):
            calls = 0

            def __deepcopy__(self, memo):
                raise AssertionError("copied")

            def forward(self, x):
                Uncopied.calls += 1
                return super().forward(x)

        model = nn.Sequential(
            Uncopied(8, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=2)
        )
        x = torch.randn(2, 8, 16, 16)
        with FlopCounterMode(display=False) as plain:
            model(x)
        Uncopied.calls = 0
        with FlopCounterMode(display=False) as counted:
            profile_operations(model, [x])
        assert Uncopied.calls == 1
        assert counted.get_total_flops() < 1.05 * plain.get_total_flops()

    def test_neurons_need_not_be_of_a_known_class(self):
        class Threshold(nn.Module):
            v_threshold = 1.0

            def forward(self, x):
                return (x >= self.v_threshold).to(x)

        x = torch.randn(2, 6)
        for fire in (Threshold(), Call(lambda x: torch.heaviside(x - 1, x.new_tensor(1.0)))):
            report = profile_operations(nn.Sequential(fire, nn.Linear(6, 5)), [x])
            (row,) = report.rows
            assert (row.value_kind, row.is_accumulate) == ("binary", True)
            assert row.exact_synaptic_operations * 2 == 5 * (x >= 1).sum()
        report = profile_operations(nn.Sequential(Threshold(), nn.Linear(6, 5)), [x])
        assert report.firing_rates == {"0": pytest.approx((x >= 1).double().mean().item())}

    def test_counts_are_whole_numbers_beyond_the_precision_of_float32(self):
        x = torch.ones(1, 8193)
        count = only_row(nn.Linear(8193, 2049), x).exact_synaptic_operations
        assert count == 8193 * 2049 == 16_787_457
        assert count != float(torch.tensor(count, dtype=torch.float32))


class TestSyops:
    @pytest.mark.parametrize(
        ("function", "shape", "weight", "kind"),
        [
            (F.linear, (2, 5), (3, 5), "linear"),
            (lambda x, w: x @ w, (2, 5), (5, 3), "linear"),
            (lambda x, w: torch.einsum("bnc,dc->bnd", x, w), (2, 4, 5), (3, 5), "linear"),
            (lambda x, w: F.conv1d(x, w, padding=1), (2, 4, 9), (6, 4, 3), "conv1d"),
            (
                lambda x, w: F.conv2d(x, w, stride=2, padding=1),
                (2, 4, 9, 9),
                (6, 4, 3, 3),
                "conv2d",
            ),
            (lambda x, w: F.conv2d(x, w, groups=4), (2, 4, 9, 9), (4, 1, 3, 3), "conv2d"),
            (lambda x, w: F.conv3d(x, w), (2, 2, 4, 4, 4), (3, 2, 2, 2, 2), "conv3d"),
            (
                lambda x, w: F.conv_transpose2d(x, w, stride=2, padding=1),
                (2, 4, 5, 5),
                (4, 6, 3, 3),
                "conv_transpose2d",
            ),
        ],
    )
    def test_functional_operations_are_counted(self, function, shape, weight, kind):
        x = spikes(*shape)
        row = only_row(Call(function, *weight), x)
        ones = torch.ones(weight, dtype=torch.float64)
        assert row.kind == kind
        assert row.exact_synaptic_operations * 2 == function(mask(x), ones).sum()
        assert row.dense_macs_unpadded * 2 == function(torch.ones(shape).double(), ones).sum()

    def test_values_are_not_sorted(self):
        class Sorted(TorchDispatchMode):
            values = 0

            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                if any(word in func.__name__ for word in ("unique", "sort")):
                    self.values += args[0].numel()
                return func(*args, **(kwargs or {}))

        x = torch.randn(2, 8, 64, 64)
        with Sorted() as mode:
            profile_operations(nn.Conv2d(8, 8, 1), [x, x + 1, spikes(2, 8, 64, 64)])
        assert mode.values < 0.1 * 3 * x.numel()


class TestSpikingJelly:
    @pytest.mark.parametrize("value", [0.25, -1.0, 3.0])
    def test_spikes_of_another_size_are_no_multiplications(self, value):
        x = value * spikes(2, 6)
        row = only_row(nn.Linear(6, 5), x)
        assert (row.value_kind, row.is_accumulate) == ("scaled", True)
        assert row.rate == row.accumulations == pytest.approx(mask(x).mean().item())
        assert row.exact_synaptic_operations * 2 == 5 * mask(x).sum()

    @pytest.mark.parametrize("silent_first", [True, False])
    @pytest.mark.parametrize("kind", ["real", "integer"])
    def test_a_silent_image_makes_no_spikes_of_other_values(self, kind, silent_first):
        values = torch.arange(1.0, 19.0).view(3, 6) * (1 if kind == "integer" else 0.3)
        batches = [torch.zeros(1, 6), values]
        row = only_row(nn.Linear(6, 5), *(batches if silent_first else batches[::-1]))
        assert (row.value_kind, row.is_accumulate) == (kind, False)
        assert row.rate == pytest.approx(3 / 4)
        assert row.exact_synaptic_operations == pytest.approx(6 * 5 * 3 / 4)

    def test_nothing_but_zeros_costs_nothing(self):
        row = only_row(nn.Conv2d(3, 4, 3), torch.zeros(2, 3, 5, 5))
        assert row.rate == row.accumulations == row.exact_synaptic_operations == 0.0
        assert row.dense_macs == 3 * 4 * 9 * 9

    def test_counts_are_means_over_all_images_however_they_are_batched(self):
        torch.manual_seed(0)
        model = nn.Conv2d(3, 4, 3, padding=1)
        images = torch.cat([spikes(1, 3, 6, 6, rate=rate / 8, seed=rate) for rate in range(7)])
        ones = torch.ones(4, 3, 3, 3, dtype=torch.float64)
        counts = [F.conv2d(mask(image), ones, padding=1).sum().item() for image in images]
        rates = [mask(image).mean().item() for image in images]
        for sizes in ([7], [1, 4, 2], [1] * 7):
            report = profile_operations(model, images.split(sizes))
            (row,) = report.rows
            assert report.images == 7
            assert report.synaptic_operations == pytest.approx(statistics.mean(counts))
            assert row.exact_std == pytest.approx(statistics.stdev(counts))
            assert row.rate == pytest.approx(statistics.mean(rates))
            assert row.rate_std == pytest.approx(statistics.stdev(rates))

    def test_additions_of_norms_and_residuals_are_no_synaptic_operations(self):
        class Block(nn.Module):
            def __init__(self, bare: bool) -> None:
                super().__init__()
                self.conv = nn.Conv2d(4, 4, 3, padding=1)
                self.norm = nn.Identity() if bare else nn.BatchNorm2d(4)
                self.bare = bare

            def forward(self, x):
                out = self.norm(self.conv(x))
                return out if self.bare else out + x

        x = spikes(2, 4, 6, 6)
        bare, whole = (profile_operations(Block(bare), [x]) for bare in (True, False))
        assert whole.rows == bare.rows
        assert [row.kind for row in whole.rows] == ["conv2d"]
        (norm,) = whole.uncounted
        assert (norm.name, norm.reason) == ("norm", "elementwise")
        assert norm.multiplications == 4 * 6 * 6

    def test_one_convolution_each_layer(self):
        class Convolutions(TorchDispatchMode):
            def __init__(self) -> None:
                super().__init__()
                self.dtypes: Counter[torch.dtype] = Counter()

            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                if "convolution" in func.__name__:
                    self.dtypes[args[0].dtype] += 1
                return func(*args, **(kwargs or {}))

        model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, stride=2))
        with Convolutions() as mode:
            profile_operations(model, [spikes(2, 3, 8, 8)])
        assert mode.dtypes == {torch.float32: 2}

    def test_the_two_agree_on_a_spiking_transformer(self):
        counters = pytest.importorskip("spikingjelly.activation_based.op_counter")
        torch.manual_seed(0)
        model = replace_neurons(build_classifier("meta_spikeformer_nano", 10, 2).eval())
        images = torch.randn(2, 3, 32, 32)
        report = profile_operations(model, [images])
        reset(model)
        counter = counters.SynOpCounter()
        with torch.no_grad(), counters.DispatchCounterMode([counter]):
            model(images)
        theirs = counter.get_counts()["Global"]
        convolutions = [row for row in rows_of(report, "conv2d") if row.value_kind == "binary"]
        assert len(convolutions) > 20
        ours = sum(row.exact_synaptic_operations * 2 for row in convolutions)
        assert ours == theirs[torch.ops.aten.convolution.default] > 0

    @pytest.mark.parametrize(
        "multiply",
        [lambda x: x @ x.mT, lambda x: x.flatten(0, 1) @ x.flatten(0, 1).mT],
        ids=["bmm", "mm"],
    )
    def test_the_two_agree_on_products_of_spikes(self, multiply):
        counters = pytest.importorskip("spikingjelly.activation_based.op_counter")
        x = spikes(2, 5, 7)
        counter = counters.SynOpCounter()
        with counters.DispatchCounterMode([counter]):
            multiply(x)
        assert only_row(Call(multiply), x).exact_synaptic_operations * 2 == counter.get_total() > 0


def test_dense_work_says_whether_padding_is_in_it():
    row = only_row(nn.Conv2d(5, 7, 3, padding=1), spikes(2, 5, 16, 16))
    assert row.dense_macs == 5 * 7 * (16 * 3) ** 2
    assert row.dense_macs_unpadded == 5 * 7 * (16 * 3 - 2) ** 2
    assert row.dense_macs / row.dense_macs_unpadded == pytest.approx(1.09, abs=0.005)


def test_an_integer_spike_costs_as_many_additions_as_it_says():
    torch.manual_seed(0)
    neuron, layer = ILIF(), nn.Linear(8, 5)
    x = 2 * torch.randn(1, 3, 8) + 1
    with torch.no_grad():
        fired = neuron(x).double()
    assert set(fired.unique().tolist()) > {0.0, 1.0, 2.0}
    row = only_row(nn.Sequential(neuron, layer), x, time_steps=1)
    assert (row.value_kind, row.is_accumulate) == ("integer", True)
    assert row.exact_synaptic_operations == 5 * fired.sum()
    assert row.accumulations == row.magnitude == pytest.approx(fired.mean().item())
    assert row.rate == pytest.approx(mask(fired).mean().item())


def test_pixels_are_multiplied_whole_numbers_or_not():
    pixels = torch.arange(2 * 3 * 16.0).view(2, 3, 4, 4)
    row = only_row(nn.Conv2d(3, 4, 1), pixels)
    assert (row.value_kind, row.encodes, row.is_accumulate) == ("integer", True, False)
    assert row.exact_synaptic_operations * 2 == 4 * mask(pixels).sum()

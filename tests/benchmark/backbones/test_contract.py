from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from torch import Tensor, nn
from torch import distributed as dist

import spikebench.backbones
from spikebench import check_backbone, list_backbones
from spikebench.backbones.contract import CLAUSES, ClauseResult, ContractReport
from spikebench.backbones.zoo import FeatureInfo, to_time_first
from spikebench.cli import backbones
from spikebench.neurons import ILIF, LIF
from spikebench.registry import BACKBONES, UnknownNameError

ALL = list(CLAUSES)
HERE = r"backbones/test_contract\.py:\d+"


class Net(nn.Module):
    """Conv, BN and LIF, conv, BN: a right backbone, of which each wrong one changes one thing."""

    def __init__(self, time_steps: int = 1, in_channels: int = 3, lif: nn.Module | None = None):
        super().__init__()
        self.time_steps = time_steps
        self.feature_info = [FeatureInfo(6, 2), FeatureInfo(10, 4)]
        self.stem = nn.Sequential(nn.Conv2d(in_channels, 6, 3, 2, 1), nn.BatchNorm2d(6))
        self.lif = lif or LIF()
        self.deep = nn.Sequential(nn.Conv2d(6, 10, 3, 2, 1), nn.BatchNorm2d(10))

    def forward(self, x: Tensor):
        x = self.time_first(x)
        shallow = self.stem(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        spikes = self.lif(shallow)
        return shallow, self.deep(spikes.flatten(0, 1)).unflatten(0, x.shape[:2])

    def time_first(self, x: Tensor) -> Tensor:
        return to_time_first(x, self.time_steps, 4)


class LeakyLIF(nn.Module):
    """Keeps its membrane from call to call, as long as the shapes allow it."""

    strict = False
    spike_levels = 1

    def __init__(self) -> None:
        super().__init__()
        self.membrane: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.strict and self.membrane is not None and self.membrane.shape != x.shape[1:]:
            self.membrane = None
        first = x[:1] if self.membrane is None else x[:1] + self.membrane
        spikes = LIF()(torch.cat([first, x[1:]]))
        self.membrane = (x[-1] * (1 - spikes[-1])).detach()
        return spikes


class StrictLeakyLIF(LeakyLIF):
    """Keeps its membrane whatever comes: another batch size is an error."""

    strict = True


class MergedLIF(LIF):
    """Runs over time and batch as if they were one time axis."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class NoGradientLIF(LIF):
    def forward(self, x: Tensor) -> Tensor:
        return (x >= 2).to(x.dtype)


class ZeroGradientLIF(LIF):
    def forward(self, x: Tensor) -> Tensor:
        return (x >= 2).to(x.dtype) + 0 * x


class NanGradientLIF(LIF):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0 * (x - x.detach()).sqrt()


class GradedLIF(LIF):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 0.5


class InhibitoryLIF(LIF):
    def forward(self, x: Tensor) -> Tensor:
        return -super().forward(x)


class SoftInTraining(LIF):
    def forward(self, x: Tensor) -> Tensor:
        return x.sigmoid() if self.training else super().forward(x)


class SpikesAndMembrane(LIF):
    """Its own caller knows what to do with the pair."""

    def forward(self, x: Tensor):
        return super().forward(x), x


class TakesFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.neuron = SpikesAndMembrane()

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(x)[0]


class BinaryByName(ILIF):
    """Declares binary spikes and gives integers."""

    def __init__(self) -> None:
        super().__init__(levels=4)
        self.spike_levels = 1


class OtherNeuron(nn.Module):
    """A neuron of another library: it declares nothing."""

    def __init__(self, **declared: int) -> None:
        super().__init__()
        self.__dict__.update(declared)

    def forward(self, x: Tensor) -> Tensor:
        return LIF()(x)


def leaky(**kw):
    return Net(lif=LeakyLIF(), **kw)


def strictly_leaky(**kw):
    return Net(lif=StrictLeakyLIF(), **kw)


def merged(**kw):
    return Net(lif=MergedLIF(), **kw)


def graded(**kw):
    return Net(lif=GradedLIF(), **kw)


def inhibitory(**kw):
    return Net(lif=InhibitoryLIF(), **kw)


def soft_in_training(**kw):
    return Net(lif=SoftInTraining(), **kw)


def spikes_and_membrane(**kw):
    return Net(lif=TakesFirst(), **kw)


def binary_by_name(**kw):
    return Net(lif=BinaryByName(), **kw)


def integers(**kw):
    return Net(lif=ILIF(levels=4), **kw)


def undeclared_neuron(**kw):
    return Net(lif=OtherNeuron(), **kw)


def declared_neuron(**kw):
    return Net(lif=OtherNeuron(spike_levels=1), **kw)


def no_neuron(**kw):
    return Net(lif=nn.ReLU(), **kw)


def without_surrogate(**kw):
    return Net(lif=NoGradientLIF(), **kw)


def with_zero_gradient(**kw):
    return Net(lif=ZeroGradientLIF(), **kw)


def with_nan_gradient(**kw):
    return Net(lif=NanGradientLIF(), **kw)


def wrong_stride(**kw):
    model = Net(**kw)
    model.feature_info[1] = FeatureInfo(10, 8)
    return model


def wrong_channels(**kw):
    model = Net(**kw)
    model.feature_info[0] = FeatureInfo(7, 2)
    return model


def undeclared_map(**kw):
    model = Net(**kw)
    model.feature_info.pop(0)
    return model


def deep_to_shallow(**kw):
    model = Net(**kw)
    model.feature_info.reverse()
    model.register_forward_hook(lambda module, args, maps: maps[::-1])
    return model


def a_list_of_maps(**kw):
    model = Net(**kw)
    model.register_forward_hook(lambda module, args, maps: list(maps))
    return model


def maps_of_spikes(**kw):
    model = Net(**kw)
    model.register_forward_hook(lambda module, args, maps: (LIF()(maps[0]), maps[1]))
    return model


def blind_in_depth(**kw):
    model = Net(**kw)
    model.register_forward_hook(lambda module, args, maps: (maps[0], maps[1] * 0 + 0.5))
    return model


def unused_parameter(**kw):
    model = Net(**kw)
    model.old_head = nn.Linear(3, 2)
    return model


class Noisy(Net):
    def forward(self, x: Tensor):
        return tuple(maps + torch.rand(()) for maps in super().forward(x))


class NoisyElsewhere(Net):
    def forward(self, x: Tensor):
        return tuple(maps + random.random() + np.random.rand() for maps in super().forward(x))


class BatchFirstFrames(Net):
    """Reads (B, T) as (T, B)."""

    def time_first(self, x: Tensor) -> Tensor:
        frames = super().time_first(x)
        return x.reshape(frames.shape) if x.dim() == 5 else frames


class FixedSize(Net):
    def __init__(self, **kw) -> None:
        super().__init__(**kw)
        self.position = nn.Parameter(torch.randn(3, 8, 8))

    def time_first(self, x: Tensor) -> Tensor:
        return super().time_first(x) + self.position


class HiddenWeight(Net):
    """Holds a weight that no state dict knows."""

    def __init__(self, **kw) -> None:
        super().__init__(**kw)
        self.hidden = torch.rand(())

    def time_first(self, x: Tensor) -> Tensor:
        return super().time_first(x) * self.hidden


class EveryOtherStep(Net):
    """Leaves out its last layers in every second training step, as stochastic depth may."""

    def __init__(self, **kw) -> None:
        super().__init__(**kw)
        self.extra = nn.Conv2d(10, 10, 1)
        self.steps = 0

    def forward(self, x: Tensor):
        shallow, deep = super().forward(x)
        self.steps += torch.is_grad_enabled()
        if self.training and self.steps % 2 == 0:
            return shallow, deep
        return shallow, deep + self.extra(deep.flatten(0, 1)).unflatten(0, deep.shape[:2])


class LazyStem(Net):
    """Finds out its input channels in the first call."""

    def __init__(self, **kw) -> None:
        super().__init__(**kw)
        self.stem[0] = nn.LazyConv2d(6, 3, 2, 1)


class KeepsGraph(Net):
    """Keeps a running mean of its training maps, and with it their graph."""

    kept: Tensor | float = 0.0

    def forward(self, x: Tensor):
        shallow, deep = super().forward(x)
        if self.training:
            self.kept = 0.9 * self.kept + 0.1 * deep.mean()
            deep = deep + self.kept
        return shallow, deep


class FullPrecisionOnly(Net):
    """Writes half precision into a tensor of the image's type, which only copies convert."""

    def forward(self, x: Tensor):
        shallow, deep = super().forward(x)
        first = torch.arange(len(deep), device=x.device)
        return shallow, torch.zeros_like(deep, dtype=x.dtype).index_add(0, first, deep)


class LeavesTheRange(Net):
    """Goes where float64 alone can follow."""

    def forward(self, x: Tensor):
        return tuple(maps * 1e200 * 1e-200 for maps in super().forward(x))


class RoundsInHalf(Net):
    def forward(self, x: Tensor):
        shallow, deep = super().forward(x)
        whole = not self.training and deep.dtype == torch.bfloat16
        return shallow, deep.int() if whole else deep


class OtherOnCuda(Net):
    def forward(self, x: Tensor):
        return tuple(maps + float(maps.is_cuda) for maps in super().forward(x))


class HomesickMaps(Net):
    def forward(self, x: Tensor):
        return tuple(maps.cpu() for maps in super().forward(x))


class PlainTensor(Net):
    """Holds a tensor that does not move with the module."""

    def __init__(self, **kw) -> None:
        super().__init__(**kw)
        self.scale = torch.full((6, 1, 1), 2.0)

    def time_first(self, x: Tensor) -> Tensor:
        return super().time_first(x) * self.scale[:3].to(x.dtype)


def batch_statistics(**kw):
    model = Net(**kw)
    model.deep[1] = nn.BatchNorm2d(10, track_running_stats=False)
    return model


class NoTimeSteps(Net):
    def __init__(self, **kw) -> None:
        super().__init__(**kw)
        del self.time_steps


def ignores_time_steps(time_steps: int):
    return Net(time_steps=4)


def no_feature_info(**kw):
    model = Net(**kw)
    del model.feature_info
    return model


def feature_info_of_dicts(**kw):
    model = Net(**kw)
    model.feature_info = [{"channels": 6, "stride": 2}]
    return model


def factory_without_time_steps():
    return Net()


def not_a_module(**kw):
    return "weights.pth"


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ContractReport]:
    """Check a factory that is registered for this one test."""

    def run(factory: Callable, **overrides) -> ContractReport:
        monkeypatch.setitem(BACKBONES._entries, factory.__name__, factory)
        return check_backbone(factory.__name__, **overrides)

    return run


def failed(report: ContractReport) -> dict[str, str]:
    assert [clause.name for clause in report.clauses] == ALL
    return {clause.name: clause.reason for clause in report.failures}


def test_nano_keeps_the_contract():
    report = check_backbone("meta_spikeformer_nano")
    assert report.ok, report
    assert failed(report) == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in list_backbones() if n != "meta_spikeformer_nano"])
def test_every_backbone_keeps_the_contract(name: str):
    report = check_backbone(name)
    assert report.ok, report


@pytest.mark.parametrize("factory", [Net, integers, declared_neuron])
def test_a_right_backbone_keeps_the_contract(check, factory):
    report = check(factory)
    assert report.ok, report
    assert str(report).splitlines()[0].split() == ["builds", "passed"]


@pytest.mark.parametrize("overrides", [{"time_steps": 1}, {"time_steps": 3, "in_channels": 2}])
def test_overrides_reach_the_backbone_and_its_inputs(check, overrides: dict):
    report = check(Net, **overrides)
    assert report.ok, report


OTHER = "they differ by up to"
WRONG = [
    (leaky, "fresh_state", f"second call .*{OTHER}", "map 1, .* step 0"),
    (merged, "independent_images", "image 0 of a batch of 3", "map 1"),
    (batch_statistics, "independent_images", "they differ by up to", "map 1"),
    (wrong_stride, "feature_maps", "10 channels at stride 8", "map 1 at T = 1"),
    (wrong_channels, "feature_maps", r"shape \(1, 2, 6, 4, 4\); .* 7 channels", "map 0 at T = 1"),
    (undeclared_map, "feature_maps", "2 maps.* 1$", "feature_info"),
    (deep_to_shallow, "feature_maps", r"strides \[4, 2\]", "feature_info"),
    (a_list_of_maps, "feature_maps", "a list", HERE),
    (maps_of_spikes, "feature_maps", "whole numbers", "map 0 at T = 1"),
    (blind_in_depth, "responsive", "two different images", "map 1"),
    (BatchFirstFrames, "event_frames", "frames that repeat", "map 0"),
    (
        unused_parameter,
        "gradients",
        "no gradient reaches 2 of 10 parameters",
        "old_head.weight, old_head.bias",
    ),
    (without_surrogate, "gradients", "no gradient .* to the image", "map 1"),
    (with_zero_gradient, "gradients", "no gradient .* to the image", "map 1"),
    (with_nan_gradient, "gradients", "4 of 8 parameters", "stem.0.weight, "),
    (FixedSize, "any_size", "RuntimeError: The size of tensor a", HERE),
    (HiddenWeight, "state_dict", OTHER, "map 0"),
    (Noisy, "deterministic", OTHER, "map 0"),
    (NoisyElsewhere, "deterministic", OTHER, "map 0"),
    (graded, "spike_range", r"spike of 0\.5.* 0 or 1", "lif .Graded"),
    (inhibitory, "spike_range", "spike of -1.* = 1", "lif .InhibitoryLIF."),
    (soft_in_training, "spike_range", r"spike of 0\.\d+", "lif .SoftInTraining."),
    (spikes_and_membrane, "spike_range", "a tuple", "lif.neuron .Spike"),
    (binary_by_name, "spike_range", "spike of [234].* = 1", "lif .BinaryByName"),
    (undeclared_neuron, "spike_range", "`spike_levels`", HERE),
    (no_neuron, "spike_range", "no neuron .* `spike_levels`", HERE),
    (
        EveryOtherStep,
        "distributed",
        "step 1 .* 2 of 10 parameters",
        "extra.weight, extra.bias",
    ),
    (LazyStem, "distributed", "RuntimeError: Modules with uninitialized parameters", HERE),
    (KeepsGraph, "distributed", "RuntimeError: Trying to backward through the graph a", HERE),
    (FullPrecisionOnly, "autocast", "RuntimeError: index_add", HERE),
    (LeavesTheRange, "autocast", "not finite", "map 0 under .*bfloat16 on cpu, training=T"),
    (RoundsInHalf, "autocast", "torch.int32", "map 1 .* training=False"),
]
ON_CUDA = [
    (OtherOnCuda, "on CUDA .* differ by up to 1", "map 0"),
    (HomesickMaps, "on cpu", "map 0"),
    (PlainTensor, "RuntimeError: Expected all tensors to be on the same device", HERE),
]


def assert_fails_alone(report: ContractReport, clause: str, reason: str, place: str) -> None:
    failures = report.failures
    assert not report.ok
    assert [failure.name for failure in failures] == [clause], report
    assert re.match(place, failures[0].place), report
    assert re.search(reason, failures[0].reason), report
    assert f"failed: {failures[0].reason} ({failures[0].place})" in str(report)


@pytest.mark.parametrize(
    ("factory", "clause", "reason", "place"), WRONG, ids=[each[0].__name__ for each in WRONG]
)
def test_a_wrong_backbone_fails_its_clause_alone(check, factory, clause, reason, place):
    assert_fails_alone(check(factory), clause, reason, place)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("factory", "reason", "place"), ON_CUDA)
def test_a_backbone_that_is_wrong_on_cuda_alone_fails_there(check, factory, reason, place):
    assert_fails_alone(check(factory), "cuda", reason, place)


def test_every_clause_has_a_wrong_backbone():
    assert {clause for _, clause, _, _ in WRONG} == {*ALL} - {"builds", "cuda"}


def test_without_cuda_its_clause_is_skipped(check, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    report = check(OtherOnCuda)
    others = [clause for clause in report.clauses if clause.result != "passed"]
    assert others == [ClauseResult("cuda", "skipped", "no CUDA device")]
    assert report.ok
    assert re.search(r"^cuda +skipped: no CUDA device$", str(report), re.MULTILINE)


def test_what_the_gradients_tell_is_not_told_again(check):
    report = {clause.name: clause for clause in check(unused_parameter).clauses}
    assert report["distributed"] == ClauseResult("distributed", "skipped", "gradients failed")


class TestProcessGroup:
    def test_none_is_left_behind(self, check):
        assert check(Net).ok
        assert check(LazyStem).failures
        assert not dist.is_initialized()

    def test_one_that_exists_is_left_alone(self, check):
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        try:
            before = dist.group.WORLD
            assert [clause.result for clause in check(Net).clauses].count("passed") >= len(ALL) - 1
            assert dist.group.WORLD is before
            dist.barrier()
        finally:
            dist.destroy_process_group()

    def test_one_of_several_processes_is_not_the_place(
        self, check, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(dist, "is_initialized", lambda: True)
        monkeypatch.setattr(dist, "get_world_size", lambda: 4)
        report = {clause.name: clause for clause in check(Net).clauses}
        assert report["distributed"].result == "skipped"
        assert report["distributed"].reason.startswith("this process is one of 4; run")


def test_state_that_does_not_fit_the_next_batch_is_an_error_and_no_crash(check):
    failures = failed(check(strictly_leaky))
    assert list(failures) == ["any_size", "fresh_state", "independent_images", "state_dict"]
    assert "second call" in failures["fresh_state"]
    assert failures["independent_images"].startswith("RuntimeError: The size of tensor")
    assert "\n" not in "".join(failures.values())


@pytest.mark.parametrize(
    ("factory", "reason", "place"),
    [
        (not_a_module, ".* str, not", HERE),
        (NoTimeSteps, ".*time_steps=1, .* None", HERE),
        (ignores_time_steps, ".*time_steps=1, .* 4", HERE),
        (no_feature_info, "feature_info is None", HERE),
        (feature_info_of_dicts, "{'channels': 6, 'stride': 2}", r"feature_info\[0\]"),
        (factory_without_time_steps, "TypeError: .* keyword argument 'time_steps'", HERE),
    ],
)
def test_what_cannot_be_built_is_checked_no_further(check, factory, reason: str, place: str):
    builds, *others = check(factory).clauses
    assert builds.result == "failed"
    assert re.match(reason, builds.reason)
    assert re.fullmatch(place, builds.place)
    assert [other.name for other in others] == ALL[1:]
    assert {(other.result, other.reason) for other in others} == {("skipped", "builds failed")}


def test_an_error_inside_torch_is_placed_where_the_backbone_called_it(check):
    def wants_five_channels(**kw):
        return Net(in_channels=5, **kw)

    report = check(wants_five_channels)
    assert len(report.failures) >= len(ALL) - 3
    for failure in report.failures:
        assert re.match(r"RuntimeError: .* to have 5 channels", failure.reason)
        assert re.fullmatch(HERE, failure.place)


def test_the_command_shows_clause_result_reason_and_place(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def needs_a_list(**kw):
        raise ValueError("expected [b, c]")  # what rich would take for markup

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    rows = {}
    for factory in (unused_parameter, needs_a_list):
        monkeypatch.setitem(BACKBONES._entries, factory.__name__, factory)
        with pytest.raises(typer.Exit):
            backbones.check(factory.__name__)
        lines = capsys.readouterr().out.splitlines()
        cells = [re.split(r"\s{2,}", line.strip()) for line in lines if line.strip()]
        rows[factory] = {first: rest for first, *rest in cells}
    assert rows[unused_parameter]["clause"] == ["result", "reason", "place"]
    assert rows[unused_parameter]["builds"] == ["passed"]
    assert rows[unused_parameter]["gradients"] == [
        "FAILED",
        "no gradient reaches 2 of 10 parameters",
        "old_head.weight, old_head.bias",
    ]
    assert rows[unused_parameter]["cuda"] == ["skipped", "no CUDA device"]
    result, reason, place = rows[needs_a_list]["builds"]
    assert (result, reason) == ("FAILED", "ValueError: expected [b, c]")
    assert re.fullmatch(HERE, place)


def test_an_unknown_name_is_the_callers_error():
    with pytest.raises(UnknownNameError, match="meta_spikeformer_nan"):
        check_backbone("meta_spikeformer_nan")


def test_generators_and_threads_are_left_alone(check):
    def state() -> tuple:
        numpy_state = np.random.get_state()
        return (
            torch.get_rng_state().tolist(),
            random.getstate(),
            numpy_state[1].tolist(),
            numpy_state[2],
            torch.get_num_threads(),
        )

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    before = state()
    try:
        check(Noisy)
        check(NoisyElsewhere)
        assert state() == before
    finally:
        torch.set_num_threads(threads)


def test_every_clause_says_what_it_demands():
    assert ALL[0] == "builds"
    assert all((check.__doc__ or "").endswith(".") for check in CLAUSES.values())


def test_the_page_shows_the_contract_as_it_is():
    page = Path(spikebench.backbones.__file__).with_name("README.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \|$", page, re.MULTILINE)
    assert rows == [(name, check.__doc__) for name, check in CLAUSES.items()]

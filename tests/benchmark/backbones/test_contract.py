from __future__ import annotations

import random
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmark import check_backbone, list_backbones
from benchmark.backbones.contract import CLAUSES, ContractReport
from benchmark.backbones.zoo import FeatureInfo, to_time_first
from benchmark.neurons import LIF
from benchmark.registry import BACKBONES, UnknownNameError

ALL = list(CLAUSES)


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


class NanGradientLIF(LIF):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0 * (x - x.detach()).sqrt()


def leaky(**kw):
    return Net(lif=LeakyLIF(), **kw)


def strictly_leaky(**kw):
    return Net(lif=StrictLeakyLIF(), **kw)


def merged(**kw):
    return Net(lif=MergedLIF(), **kw)


def without_surrogate(**kw):
    return Net(lif=NoGradientLIF(), **kw)


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


def test_the_right_backbone_keeps_the_contract(check):
    report = check(Net)
    assert report.ok, report
    assert str(report).splitlines()[0].split() == ["builds", "ok"]


@pytest.mark.parametrize("overrides", [{"time_steps": 1}, {"time_steps": 3, "in_channels": 2}])
def test_overrides_reach_the_backbone_and_its_inputs(check, overrides: dict):
    report = check(Net, **overrides)
    assert report.ok, report


@pytest.mark.parametrize(
    ("factory", "clause", "reason"),
    [
        (leaky, "fresh_state", "the second call with the same batch gives other maps: map 1"),
        (merged, "independent_images", "image 0 of a batch of 3 has other maps than alone: map 1"),
        (batch_statistics, "independent_images", "map 1 differs by up to"),
        (wrong_stride, "feature_maps", "map 1 .* declares 10 channels at stride 8"),
        (wrong_channels, "feature_maps", r"map 0 has shape \(1, 2, 6, 4, 4\) .* 7 channels"),
        (undeclared_map, "feature_maps", "2 maps, but feature_info declares 1"),
        (deep_to_shallow, "feature_maps", r"strides \[4, 2\]; expected shallow to deep"),
        (a_list_of_maps, "feature_maps", "forward returns a list; expected a tuple"),
        (maps_of_spikes, "feature_maps", "map 0 holds whole numbers, such as spikes"),
        (blind_in_depth, "responsive", "map 1 is the same for two different images"),
        (BatchFirstFrames, "event_frames", "frames that repeat an image give other maps"),
        (
            unused_parameter,
            "gradients",
            "no gradient reaches 2 of 10 parameters: old_head.weight, old_head.bias",
        ),
        (without_surrogate, "gradients", "no gradient runs from map 1 to the image"),
        (with_nan_gradient, "gradients", "no finite gradient 4 of 8 parameters: stem.0.weight"),
        (FixedSize, "any_size", r"RuntimeError: .* \(backbones/test_contract.py, line \d+\)"),
        (HiddenWeight, "state_dict", "the same state dict gives other maps: map 0"),
        (Noisy, "deterministic", "a repeated run, without gradients, gives other maps: map 0"),
        (NoisyElsewhere, "deterministic", "gives other maps: map 0"),
    ],
)
def test_a_wrong_backbone_fails_its_clause_alone(check, factory, clause: str, reason: str):
    report = check(factory)
    failures = failed(report)
    assert not report.ok
    assert list(failures) == [clause], report
    assert re.search(reason, failures[clause]), report
    assert f"FAILED: {failures[clause]}" in str(report)


def test_state_that_does_not_fit_the_next_batch_is_an_error_and_no_crash(check):
    failures = failed(check(strictly_leaky))
    assert list(failures) == ["fresh_state", "independent_images", "any_size", "state_dict"]
    assert "the second call with the same batch" in failures["fresh_state"]
    assert failures["independent_images"].startswith("RuntimeError: The size of tensor")
    assert "\n" not in "".join(failures.values())


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        (not_a_module, "the factory returns str, not an nn.Module"),
        (NoTimeSteps, "built with time_steps=1, its time_steps is None"),
        (ignores_time_steps, "built with time_steps=1, its time_steps is 4"),
        (no_feature_info, "feature_info is None; expected one entry for each map"),
        (feature_info_of_dicts, r"feature_info\[0\] is {'channels': 6, 'stride': 2}; expected"),
        (
            factory_without_time_steps,
            r"TypeError: .* keyword argument 'time_steps' \(backbones/zoo.py, line \d+\)",
        ),
    ],
)
def test_what_cannot_be_built_is_checked_no_further(check, factory, reason: str):
    failures = failed(check(factory))
    assert re.fullmatch(reason + ".*", failures.pop("builds"))
    assert list(failures) == ALL[1:]
    assert set(failures.values()) == {"not checked, for 'builds' failed"}


def test_an_error_inside_torch_is_placed_where_the_backbone_called_it(check):
    def wants_five_channels(**kw):
        return Net(in_channels=5, **kw)

    failures = failed(check(wants_five_channels))
    assert list(failures) == ALL[1:]
    for reason in failures.values():
        place = r"\(backbones/test_contract.py, line \d+\)"
        assert re.fullmatch(rf"RuntimeError: .* to have 5 channels.* {place}", reason)


def test_an_unknown_name_is_the_callers_error():
    with pytest.raises(UnknownNameError, match="did you mean 'meta_spikeformer_nano'"):
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

"""The contract of a backbone, written once, as a check that anyone can run on theirs.

A clause is a function of a `Builder`: it builds the backbone as often as it needs, feeds it small
inputs and raises `Violation` where the contract is broken. Everything runs in float64, where a
spike does not flip for the noise of another summation order, and on seeds of its own.
"""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from benchmark.backbones.zoo import FeatureInfo, build_backbone, list_backbones
from benchmark.registry import unknown_name

_TORCH = Path(torch.__file__).parent


class Violation(AssertionError):
    """A backbone breaks a clause; the message says where."""


@dataclass(frozen=True)
class ClauseResult:
    """One clause of the contract, checked.

    Attributes:
        name: as in `CLAUSES`.
        passed: whether the backbone keeps it.
        reason: what is wrong and where; empty if passed.
    """

    name: str
    passed: bool
    reason: str = ""


@dataclass(frozen=True)
class ContractReport:
    """All clauses of the contract, checked on one backbone.

    Attributes:
        backbone: its name.
        clauses: in the order of `CLAUSES`.
    """

    backbone: str
    clauses: tuple[ClauseResult, ...]

    @property
    def ok(self) -> bool:
        """Whether every clause passed."""
        return not self.failures

    @property
    def failures(self) -> list[ClauseResult]:
        """The clauses that failed."""
        return [clause for clause in self.clauses if not clause.passed]

    def __str__(self) -> str:
        width = max(len(clause.name) for clause in self.clauses)
        return "\n".join(
            f"{clause.name:<{width}}  {'ok' if clause.passed else 'FAILED: ' + clause.reason}"
            for clause in self.clauses
        )


def check_backbone(name: str, **overrides: Any) -> ContractReport:
    """Check a registered backbone against the contract.

    Args:
        name: as in `list_backbones()`.
        **overrides: arguments of the backbone. `time_steps` is what clauses use that do not need
            another T (2 if not given), `in_channels` also gives the channels of the inputs (3).

    Returns:
        A result for each of `CLAUSES`; an exception inside the backbone is a failed clause.

    Raises:
        UnknownNameError: nothing has that name; the message suggests near ones.

    Example:
        >>> check_backbone("meta_spikeformer_nano").ok
        True
    """
    if name not in list_backbones():
        raise unknown_name("backbone", name, list_backbones())
    builder = Builder(name, overrides)
    results: list[ClauseResult] = []
    for clause_name, check in CLAUSES.items():
        reason = ""
        if results and not results[0].passed:
            reason = f"not checked, for {results[0].name!r} failed"
        else:
            try:
                with _one_thread():
                    check(builder)
            except Exception as error:
                reason = _one_line(error)
        results.append(ClauseResult(clause_name, not reason, reason))
    return ContractReport(name, tuple(results))


class Builder:
    """Builds instances of one backbone, in float64, and inputs that fit them.

    Args:
        name: as in `list_backbones()`.
        overrides: arguments of the backbone.

    Attributes:
        time_steps: T of an instance unless asked for another.
    """

    def __init__(self, name: str, overrides: dict[str, Any]) -> None:
        self.name = name
        self.overrides = overrides
        self.time_steps: int = overrides.get("time_steps", 2)

    def fresh(self, time_steps: int | None = None, seed: int = 0) -> Any:
        """The backbone as its factory returns it."""
        arguments = {**self.overrides, "time_steps": time_steps or self.time_steps}
        with seeded(seed):
            return build_backbone(self.name, **arguments)

    def settled(self, time_steps: int | None = None, seed: int = 0) -> Any:
        """The backbone in evaluation mode and in float64, with neurons that fire.

        Batch norms get uneven weights and the statistics of a batch of images, for a network that
        is silent or tied at its thresholds would pass any comparison.
        """
        model = self.fresh(time_steps, seed).double()
        norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
        momenta = [norm.momentum for norm in norms]
        with seeded(seed), torch.no_grad():
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # the plain average, here of one batch
                if norm.affine:
                    nn.init.uniform_(norm.weight, 1.0, 3.0)
                    nn.init.uniform_(norm.bias, -0.5, 1.0)
            model.train()
            model(self.images(2, seed=seed + 100))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        return model.eval()

    @cached_property
    def feature_info(self) -> list[FeatureInfo]:
        """The maps as declared."""
        return list(self.fresh().feature_info)

    @property
    def stride(self) -> int:
        """The largest declared stride."""
        return max(info.stride for info in self.feature_info)

    def images(self, batch: int, height: int = 2, width: int = 2, seed: int = 0) -> Tensor:
        """Images `(batch, C, height, width)`, with height and width in units of `stride`."""
        shape = (batch, self.overrides.get("in_channels", 3), height, width)
        size = [*shape[:2], height * self.stride, width * self.stride]
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(size, generator=generator, dtype=torch.float64)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run torch on one thread: on inputs this small, sharing out costs more than it saves."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the CPU generators of torch, numpy and Python inside; leave them untouched outside."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


def run(model: nn.Module, x: Tensor, seed: int = 0) -> tuple[Tensor, ...]:
    """The maps of `x`, without gradients; chance is the same in every call."""
    with seeded(seed), torch.no_grad():
        return model(x)


def expect_same(expected: Sequence[Tensor], actual: Sequence[Tensor], what: str) -> None:
    """Raise a `Violation` that begins with `what` if two tuples of maps differ."""
    for index, (a, b) in enumerate(zip(expected, actual, strict=True)):
        if a.shape != b.shape:
            raise Violation(f"{what}: map {index} has shape {tuple(b.shape)}, not {tuple(a.shape)}")
        close = torch.isclose(a, b, rtol=1e-6, atol=1e-8)
        if not close.all():
            time_step = int((~close).nonzero()[0, 0])
            raise Violation(
                f"{what}: map {index} differs by up to {(a - b).abs().max():.2g}, "
                f"first at time step {time_step}"
            )


CLAUSES: dict[str, Callable[[Builder], None]] = {}
"""The contract: names to checks, in the order of checking. Their docstrings are the clauses."""


def clause(check: Callable[[Builder], None]) -> Callable[[Builder], None]:
    """Add a check to `CLAUSES` under its own name."""
    CLAUSES[check.__name__] = check
    return check


@clause
def builds(builder: Builder) -> None:
    """The factory takes `time_steps` and returns a module with `time_steps` and `feature_info`."""
    for time_steps in (1, builder.time_steps):
        model = builder.fresh(time_steps)
        if not isinstance(model, nn.Module):
            raise Violation(f"the factory returns {type(model).__name__}, not an nn.Module")
        declared = getattr(model, "time_steps", None)
        if declared != time_steps:
            raise Violation(f"built with time_steps={time_steps}, its time_steps is {declared}")
        infos: Any = getattr(model, "feature_info", None)
        if not infos:
            raise Violation(f"feature_info is {infos!r}; expected one entry for each map")
        for index, info in enumerate(infos):
            figures = [getattr(info, name, None) for name in ("channels", "stride")]
            if not all(isinstance(figure, int) and figure > 0 for figure in figures):
                raise Violation(
                    f"feature_info[{index}] is {info!r}; expected positive channels and stride"
                )


@clause
def feature_maps(builder: Builder) -> None:
    """A tuple of membrane maps (T, B, C, H, W), with the declared channels and strides."""
    strides = [info.stride for info in builder.feature_info]
    if strides != sorted(strides):
        raise Violation(f"feature_info has strides {strides}; expected shallow to deep")
    images = builder.images(2)
    for time_steps in (1, 4):
        maps = run(builder.settled(time_steps), images)
        if not isinstance(maps, tuple):
            raise Violation(f"forward returns a {type(maps).__name__}; expected a tuple of maps")
        if len(maps) != len(strides):
            raise Violation(f"{len(maps)} maps, but feature_info declares {len(strides)}")
        for index, (features, info) in enumerate(zip(maps, builder.feature_info, strict=True)):
            size = tuple(pixels // info.stride for pixels in images.shape[-2:])
            expected = (time_steps, len(images), info.channels, *size)
            if tuple(features.shape) != expected:
                raise Violation(
                    f"map {index} has shape {tuple(features.shape)} at T = {time_steps}; "
                    f"feature_info declares {info.channels} channels at stride {info.stride}, "
                    f"so {expected}"
                )
            if not features.isfinite().all():
                raise Violation(f"map {index} is not finite at T = {time_steps}")
            if torch.equal(features, features.round()):
                raise Violation(f"map {index} holds whole numbers, such as spikes, not membranes")


@clause
def responsive(builder: Builder) -> None:
    """Every map depends on the image; a silent network would keep most other clauses."""
    for index, features in enumerate(run(builder.settled(), builder.images(2))):
        if torch.equal(features[:, 0], features[:, 1]):
            raise Violation(f"map {index} is the same for two different images")


@clause
def event_frames(builder: Builder) -> None:
    """Event frames (B, T, C, H, W) that repeat an image give the maps of that image."""
    images = builder.images(2)
    frames = images.unsqueeze(1).repeat(1, builder.time_steps, 1, 1, 1)
    of_images = run(builder.settled(), images)
    of_frames = run(builder.settled(), frames)
    expect_same(of_images, of_frames, "frames that repeat an image give other maps than the image")


@clause
def fresh_state(builder: Builder) -> None:
    """No state survives a call: neither the same batch before nor another one changes the maps."""
    model = builder.settled()
    images = builder.images(2)
    first = run(model, images)
    expect_same(first, run(model, images), "the second call with the same batch gives other maps")
    run(model, builder.images(2, seed=1))
    expect_same(first, run(model, images), "another batch in between changes the maps of a batch")


@clause
def independent_images(builder: Builder) -> None:
    """In evaluation the maps of an image do not depend on the others of its batch."""
    images = builder.images(3)
    together = run(builder.settled(), images)
    for index, image in enumerate(images.split(1)):
        expect_same(
            run(builder.settled(), image),
            [features[:, index : index + 1] for features in together],
            f"image {index} of a batch of {len(images)} has other maps than alone",
        )


@clause
def gradients(builder: Builder) -> None:
    """In training a gradient runs from each map to the image, and reaches every parameter."""
    model = builder.settled().train()
    images = builder.images(2).requires_grad_()
    with seeded(0), torch.enable_grad():
        for index, features in enumerate(model(images)):
            images.grad = None
            (features * torch.randn_like(features)).mean().backward(retain_graph=True)
            if images.grad is None:
                raise Violation(f"no gradient runs from map {index} to the image")
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    reached = {name: p.grad for name, p in parameters.items() if p.grad is not None}
    for what, wrong in (
        ("no gradient reaches", [name for name in parameters if name not in reached]),
        ("no finite gradient", [name for name, g in reached.items() if not g.isfinite().all()]),
    ):
        if wrong:
            names = ", ".join(wrong[:5]) + (", ..." if len(wrong) > 5 else "")
            raise Violation(f"{what} {len(wrong)} of {len(parameters)} parameters: {names}")


@clause
def any_size(builder: Builder) -> None:
    """Height and width may be any multiple of the largest stride, odd ones and unequal ones too."""
    model = builder.settled()
    square = run(model, builder.images(1))
    for height, width in ((1, 3), (3, 2)):
        images = builder.images(1, height, width)
        for index, (features, like) in enumerate(zip(run(model, images), square, strict=True)):
            expected = (like.shape[-2] * height // 2, like.shape[-1] * width // 2)
            if tuple(features.shape[-2:]) != expected:
                raise Violation(
                    f"map {index} of {tuple(images.shape[-2:])} pixels is of "
                    f"{tuple(features.shape[-2:])}; expected {expected}"
                )


@clause
def state_dict(builder: Builder) -> None:
    """A state dict loads into a second instance, which then gives the same maps."""
    first, second = builder.settled(seed=0), builder.settled(seed=1)
    second.load_state_dict(first.state_dict())
    images = builder.images(3)
    what = "a second instance with the same state dict gives other maps"
    expect_same(run(first, images), run(second, images), what)


@clause
def deterministic(builder: Builder) -> None:
    """In evaluation chance plays no part, and recording gradients changes nothing."""
    images = builder.images(2)
    with seeded(1), torch.enable_grad():
        recorded = [features.detach() for features in builder.settled()(images)]
    with torch.inference_mode():
        repeated = run(builder.settled(), images, seed=2)
    expect_same(recorded, repeated, "a repeated run, without gradients, gives other maps")


def _one_line(error: Exception) -> str:
    """What went wrong, and for an unforeseen error the innermost line of code outside torch."""
    message = " ".join(str(error).split())
    if isinstance(error, Violation):
        return message
    place = ""
    for frame in traceback.extract_tb(error.__traceback__):
        path = Path(frame.filename)
        if path != Path(__file__) and _TORCH not in path.parents:
            place = f" ({path.parent.name}/{path.name}, line {frame.lineno})"
    return f"{type(error).__name__}: {message}{place}"

"""What clauses build a backbone with, feed it and compare."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spikebench.backbones.contract.report import definition
from spikebench.backbones.layers import settling_norms
from spikebench.backbones.options import input_channels
from spikebench.backbones.zoo import FeatureInfo, build_backbone
from spikebench.registry import BACKBONES


class Violation(AssertionError):
    """A backbone breaks a clause.

    Args:
        reason: what is wrong, in one line.
        place: where; the backbone's factory if not given.
    """

    def __init__(self, reason: str, place: str = "") -> None:
        super().__init__(reason)
        self.place = place


class Skip(Exception):
    """A clause cannot be checked on this machine; the message says why."""


class Builder:
    """Builds instances of one backbone and inputs that fit them.

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

    @property
    def place(self) -> str:
        """File and line of the factory."""
        return definition(BACKBONES.get(self.name))

    def fresh(self, time_steps: int | None = None, seed: int = 0) -> Any:
        """The backbone as its factory returns it."""
        arguments = {**self.overrides, "time_steps": time_steps or self.time_steps}
        with seeded(seed):
            return build_backbone(self.name, **arguments)

    def settled(
        self, time_steps: int | None = None, seed: int = 0, dtype: torch.dtype = torch.float64
    ) -> Any:
        """The backbone in evaluation mode, with neurons that fire.

        Batch norms get uneven weights and the statistics of a batch of images: a network that is
        silent, or tied at its thresholds, would pass any comparison.
        """
        model = self.fresh(time_steps, seed).to(dtype)
        with seeded(seed), torch.no_grad(), settling_norms(model) as norms:
            for norm in norms:
                if norm.affine:
                    nn.init.uniform_(norm.weight, 1.0, 3.0)
                    nn.init.uniform_(norm.bias, -0.5, 1.0)
            model.train()
            model(self.images(2, seed=seed + 100).to(dtype))
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
        """Images `(batch, C, height, width)`, float64, height and width in units of `stride`."""
        channels = self.overrides.get("in_channels") or input_channels(self.name)
        shape = (batch, channels, height, width)
        size = [*shape[:2], height * self.stride, width * self.stride]
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(size, generator=generator, dtype=torch.float64)


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread: on inputs this small, more threads cost more than they save."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the generators of torch, numpy and Python inside; leave them untouched outside."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices):
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed_all(seed)
        random.seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


def run(model: nn.Module, x: Tensor, seed: int = 0) -> tuple[Tensor, ...]:
    """The maps of `x`, without gradients; every call draws the same random numbers."""
    with seeded(seed), torch.no_grad():
        return model(x)


def expect_same(expected: Sequence[Tensor], actual: Sequence[Tensor], what: str) -> None:
    """Raise a `Violation` that begins with `what` if two tuples of maps differ."""
    for index, (a, b) in enumerate(zip(expected, actual, strict=True)):
        if a.shape != b.shape:
            raise Violation(f"{what}: shape {tuple(b.shape)}, not {tuple(a.shape)}", f"map {index}")
        close = torch.isclose(a, b, rtol=1e-6, atol=1e-8)
        if not close.all():
            time_step = int((~close).nonzero()[0, 0])
            raise Violation(
                f"{what}: they differ by up to {(a - b).abs().max():.2g}",
                f"map {index}, first at time step {time_step}",
            )


def named(parameters: Sequence[str]) -> str:
    """Names of parameters as the place of a violation: the first few of them."""
    return ", ".join(parameters[:5]) + (", ..." if len(parameters) > 5 else "")

"""What counting costs: the time of a counted pass over that of a plain one, taken in turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn

from spikebench.energy.profile import profile_operations


@dataclass(frozen=True)
class Overhead:
    """Seconds of each round.

    Attributes:
        plain: of a forward pass without gradients.
        counted: of `profile_operations` on the same batch.
    """

    plain: tuple[float, ...]
    counted: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """The time of a counted pass over that of a plain one, by round."""
        return [counted / plain for plain, counted in zip(self.plain, self.counted, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of the ratios."""
        return median(self.ratios)


def measure_overhead(model: nn.Module, batch: Tensor, rounds: int = 7) -> Overhead:
    """Time plain and counted passes in turns, after one of each to warm up.

    Args:
        model: as for `profile_operations`; it is put into evaluation mode.
        batch: what it takes, `(B, ...)`.
        rounds: how many turns each.
    """
    model.eval()

    def plain() -> None:
        with torch.no_grad():
            model(batch)

    def counted() -> None:
        profile_operations(model, [batch])

    plain()
    counted()
    seconds = [(_seconds(plain, batch), _seconds(counted, batch)) for _ in range(rounds)]
    return Overhead(*(tuple(column) for column in zip(*seconds, strict=True)))


def _seconds(work: Callable[[], None], batch: Tensor) -> float:
    start = time.perf_counter()
    work()
    if batch.is_cuda:
        torch.cuda.synchronize(batch.device)
    return time.perf_counter() - start

"""What a speed record says: pure functions of its raw times.

Ratios are formed round by round, between contenders that took their turns one after the other, so
that a machine that drifts slows both alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from spikebench.speed.record import SpeedRecord, Timing


def percentile(values: Sequence[float], share: float) -> float:
    """A quantile, interpolated between neighbouring values.

    >>> percentile([4.0, 1.0, 2.0], 0.75)
    3.0
    """
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def latency(timing: Timing, share: float) -> float:
    """A percentile of the seconds a batch takes, over all rounds."""
    return percentile([second for turn in timing.seconds for second in turn], share)


def images_per_second(record: SpeedRecord, timing: Timing) -> float:
    """Images per second over all batches."""
    batches = [second for turn in timing.seconds for second in turn]
    return record.settings.batch_size * len(batches) / sum(batches)


def rounds(timing: Timing) -> list[float]:
    """Median seconds per batch, per round."""
    return [median(turn) for turn in timing.seconds]


def speedups(timing: Timing, baseline: Timing) -> tuple[float, ...]:
    """Speed-up over the baseline, per round."""
    return tuple(b / t for t, b in zip(rounds(timing), rounds(baseline), strict=True))


def baseline(record: SpeedRecord, work: str) -> Timing | None:
    """What the contenders of some work are compared with; None where all that it may be failed.

    It is the fastest of the first precision whose neurons start with `record.against`; the first
    contender where that is empty.
    """
    rivals = [
        timing
        for timing in record.timings
        if timing.contender.work == work and timing.contender.neurons.startswith(record.against)
    ]
    if not record.against:
        rivals = rivals[:1]
    rivals = [
        timing
        for timing in rivals
        if timing.contender.precision == rivals[0].contender.precision and timing.error is None
    ]
    return min(rivals, key=lambda timing: median(rounds(timing)), default=None)


def floor(record: SpeedRecord, precision: str) -> list[float] | None:
    """For each round the seconds of the model's dense MACs at the rate of the matrix product.

    A square matrix product of n rows is n^3 MACs. None where it was not measured.
    """
    settings = record.settings
    macs = record.dense_macs * settings.time_steps * settings.batch_size
    for timing in record.timings:
        contender = timing.contender
        if contender.work == "matmul inference" and contender.precision == precision:
            products = macs / record.matmul_size**3
            return [products * second for second in rounds(timing)] or None
    return None


def over_floor(record: SpeedRecord, timing: Timing) -> tuple[float, ...] | None:
    """For each round its time over the floor of its precision; None but for model inference."""
    if timing.contender.work != "inference":
        return None
    seconds = floor(record, timing.contender.precision)
    if seconds is None:
        return None
    return tuple(t / f for t, f in zip(rounds(timing), seconds, strict=True))


def peak_memory(timing: Timing) -> int:
    """Peak memory over all rounds, in bytes."""
    return max(timing.peak_memory_bytes)


def working_memory(timing: Timing) -> int | None:
    """The peak above what the built model takes, in bytes."""
    if timing.model_memory_bytes is None:
        return None
    return peak_memory(timing) - timing.model_memory_bytes

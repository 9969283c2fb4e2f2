"""Speed records made up for tests."""

from __future__ import annotations

from typing import Any

from spikebench.speed.record import Contender, Settings, SpeedRecord, Timing

MIB = 2**20


def timing(seconds: list[list[float]], error: str | None = None, **contender: Any) -> Timing:
    """What was measured of a contender: for each round the seconds of its batches."""
    about = Contender(**{"neurons": "" if "subject" in contender else "reference", **contender})
    if error is not None:
        return Timing(contender=about, error=error)
    return Timing(
        contender=about,
        seconds=seconds,
        warm_up_s=[1.0, 0.5],
        peak_memory_bytes=[100 * MIB, *([80 * MIB] * (len(seconds) - 1))],
        model_memory_bytes=60 * MIB,
        spikes_equal=1.0 if about.has_reference else None,
    )


def speed_record(*timings: Timing, **changes: Any) -> SpeedRecord:
    """A record of 2 images a batch at T = 4 whose floor is 8 products of 10-row matrices."""
    settings = Settings(
        backbone_name="spikeformer",
        time_steps=4,
        batch_size=2,
        image_size=32,
        num_classes=10,
        device="cpu",
    )
    fields = {
        "key": "k0",
        "settings": settings,
        "against": "",
        "parameters": 5,
        "dense_macs": 1000.0,
        "firing_rate": 0.25,
        "optimizer": "SGD",
        "memory": "resident",
        "matmul_size": 10,
        "layer_shape": (128, 56, 56),
        "timings": list(timings),
        "device": "a processor, 2 threads",
        "started": "2025-01-01T00:00:00+00:00",
        "wall_time_s": 1.0,
    }
    return SpeedRecord(**{**fields, **changes})

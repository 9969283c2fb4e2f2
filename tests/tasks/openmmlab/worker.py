"""One of several processes that train and score a tiny model; torchrun starts this script."""

from __future__ import annotations

import dataclasses
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import tiny  # noqa: F401  its hooks; beside this script

from spikebench.distributed import launched
from spikebench.task import Run
from spikebench_tasks.openmmlab import loop


def train_and_score(run: Run, limits: list[int]) -> list[dict[str, Any]]:
    """Train, then score on the first so many test images; each image with how often it counts."""
    import spikebench_tasks.openmmlab.registered  # noqa: F401  mmcv's operators first
    from spikebench_tasks.detection.metric import CocoAP
    from spikebench_tasks.segmentation.metric import MeanIoU

    counted: list[int] = []

    def count(kind: Any) -> None:
        compute = kind.compute_metrics

        def counting(self: Any, results: list) -> dict[str, float]:
            counted.append(len(results))
            return compute(self, results)

        kind.compute_metrics = counting

    count(CocoAP)
    count(MeanIoU)
    checkpoint = loop.train(run)
    scores = []
    for limit in limits:
        metrics = loop.evaluate(dataclasses.replace(run, limit=limit), checkpoint).metrics
        scores.append({"metrics": metrics, "counted": counted[-1:]})
    return scores


def main(order: Path) -> None:
    run, limits = pickle.loads(order.read_bytes())
    with launched() as processes, processes.group():
        scores = train_and_score(run, limits)
    if processes.is_main:
        order.with_suffix(".json").write_text(json.dumps(scores))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

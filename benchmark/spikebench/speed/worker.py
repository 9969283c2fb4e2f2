"""A contender's own process: it builds, warms up and then measures whenever it is asked.

A request is a line of JSON on standard input, the answer one on standard output; the end of the
input ends the process. Whatever else is printed goes to standard error.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from spikebench.errors import UserError
from spikebench.neurons import use_backend
from spikebench.speed import spikingjelly, workloads
from spikebench.speed.memory import PeakMemory
from spikebench.speed.record import Contender, Settings

TURN_SECONDS = 0.5
MOST_BATCHES = 20
"""A turn is one timed batch, and more of them until one of these is reached."""

WARM_UPS = 2
"""Calls before the first turn: the first compiles, and makes the state of a training step."""


class Worker:
    """What a worker process does.

    Args:
        contender: what to measure; None for the one that prepares the others' files.
        settings: what all contenders share.
        folder: where `spikebench.speed.workloads.prepare` saves its files, or did.
    """

    def __init__(self, contender: Contender | None, settings: Settings, folder: Path) -> None:
        self.contender = contender
        self.settings = settings
        self.folder = folder
        self.device = torch.device(settings.device)
        self.memory = PeakMemory(self.device)
        self.workload: workloads.Workload | None = None

    def prepare(self) -> dict[str, Any]:
        """See `spikebench.speed.workloads.prepare`."""
        _take_same_algorithms()
        return workloads.prepare(self.settings, self.folder)

    def build(self) -> dict[str, Any]:
        """Build the workload and warm it up: model_memory_bytes, memory, warm_up_s."""
        assert self.contender is not None
        self.workload = workloads.build(self.contender, self.settings, self.folder)
        built = self.memory.now()
        warm_up = [self._seconds() for _ in range(WARM_UPS)]
        self.memory.give_back()
        return {
            "model_memory_bytes": built,
            "memory": self.memory.about,
            "warm_up_s": warm_up,
        }

    def measure(self) -> dict[str, Any]:
        """Take a turn: the seconds of each batch, and peak_memory_bytes.

        What it kept of memory and caches the others had meanwhile, so the first batch is not timed.
        """
        self._seconds()
        self.memory.reset()
        begun = time.perf_counter()
        seconds = [self._seconds()]
        while time.perf_counter() - begun < TURN_SECONDS and len(seconds) < MOST_BATCHES:
            seconds.append(self._seconds())
        peak = self.memory.peak()
        self.memory.give_back()
        return {"seconds": seconds, "peak_memory_bytes": peak}

    def compare(self) -> dict[str, Any]:
        """The share of spikes that equal the reference's: spikes_equal."""
        assert self.workload is not None
        _take_same_algorithms()
        return {"spikes_equal": workloads.spikes_equal(self.workload, self.folder)}

    def _seconds(self) -> float:
        assert self.workload is not None
        self._wait()
        begun = time.perf_counter()
        for _ in range(self.workload.calls):
            self.workload.step()
        self._wait()
        return round((time.perf_counter() - begun) / self.workload.calls, 9)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def _take_same_algorithms() -> None:
    """Let cuDNN round alike in every process, whatever it found to be fastest in each."""
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def answer(worker: Worker, request: str) -> dict[str, Any]:
    """Do what a request names; an error is an answer too."""
    try:
        return getattr(worker, request)()
    except Exception as error:
        message = " ".join(str(error).split())
        if not isinstance(error, UserError | ValueError):
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}:{place.lineno}"
            message = f"{type(error).__name__}: {message} ({where})"
        return {"error": message}


def main() -> None:
    """Serve requests; the first line describes the contender."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    described = json.loads(sys.stdin.readline())
    contender = described["contender"] and Contender(**described["contender"])
    # "float32" means that on every device; by default convolutions on CUDA would round to TF32
    torch.backends.fp32_precision = "ieee"  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = True
    neurons = contender.neurons if contender else ""
    peer = neurons.startswith(spikingjelly.PEER)
    if peer:
        spikingjelly.choose(neurons)
    with use_backend(neurons) if neurons and not peer else contextlib.nullcontext():
        worker = Worker(contender, Settings(**described["settings"]), Path(described["folder"]))
        for line in sys.stdin:
            print(json.dumps(answer(worker, json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()

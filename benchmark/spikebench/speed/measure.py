"""Measures contenders alternately: one process each, one measurement at a time.

Turns go round (A B C A B C ...), so that a machine that gets slower slows all contenders alike. A
process of its own gives each its own peak memory and compile caches; between its turns it waits
for input, and takes no processor time.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from spikebench.environment import commit, device_name, package_versions
from spikebench.errors import UserError
from spikebench.process import settle_process
from spikebench.speed.record import Contender, Settings, SpeedRecord, Timing, speed_key
from spikebench.speed.workloads import LAYER_SHAPE, MATMUL_SIZE, OPTIMIZER

log = logging.getLogger("spikebench")

RECORDED_VARIABLES = ("OMP_", "GOMP_", "KMP_", "MKL_", "ONEDNN_", "MALLOC_", "CUDA_MODULE_")
"""Beginnings of the environment variables that decide how fast a machine is."""

_TAIL = 2000
"""How many of the last characters of a dead worker's output are looked through."""


class WorkerError(Exception):
    """A worker failed; the message is one line."""


class WorkerProcess:
    """The process of one contender.

    Args:
        contender: what it measures; None for the one that prepares the others' files.
        settings: what all contenders share.
        folder: where their files are; its standard error goes there too.
    """

    def __init__(self, contender: Contender | None, settings: Settings, folder: Path) -> None:
        self._log = tempfile.TemporaryFile("w+", dir=folder, encoding="utf-8")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "spikebench.speed.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        described = {
            "contender": contender and contender.model_dump(),
            "settings": settings.model_dump(),
            "folder": str(folder),
        }
        self._write(json.dumps(described))

    def ask(self, request: str) -> dict[str, Any]:
        """Call a method of `spikebench.speed.worker.Worker` in the process.

        Raises:
            WorkerError: it failed, or its process ended.
        """
        self._write(json.dumps(request))
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(self._ending())
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError(self._ending()) from None

    def _ending(self) -> str:
        code = self._process.wait()
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read()[-_TAIL:].splitlines() if line.strip()]
        if code < 0:
            name = signal.Signals(-code).name
            reason = f"its process was ended by {name}"
            return reason + (", as for want of memory" if name == "SIGKILL" else "")
        return lines[-1] if lines else f"its process ended with {code}"

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._log.close()


class _Turns:
    """Collects the timing of one contender; an error ends only its own turns."""

    def __init__(self, contender: Contender, worker: WorkerProcess) -> None:
        self.contender = contender
        self.worker = worker
        self.built: dict[str, Any] = {}
        self.turns: list[dict[str, Any]] = []
        self.compared: dict[str, Any] = {}
        self.error: str | None = None

    def ask(self, request: str) -> dict[str, Any]:
        if self.error is None:
            try:
                return self.worker.ask(request)
            except WorkerError as error:
                self.error = str(error)
                self.worker.close()
                log.error("%s, %s failed: %s", self.contender.work, self.contender.label, error)
        return {}

    def timing(self) -> Timing:
        if self.error is not None:
            return Timing(contender=self.contender, error=self.error)
        return Timing(
            contender=self.contender,
            seconds=[turn["seconds"] for turn in self.turns],
            peak_memory_bytes=[turn["peak_memory_bytes"] for turn in self.turns],
            warm_up_s=self.built["warm_up_s"],
            model_memory_bytes=self.built["model_memory_bytes"],
            spikes_equal=self.compared.get("spikes_equal"),
        )


def measure_speed(
    settings: Settings, contenders: Sequence[Contender], repeats: int, against: str = ""
) -> SpeedRecord:
    """Measure contenders in turns; one that fails is recorded with its error, the others go on.

    Args:
        settings: what all of them run.
        contenders: as `spikebench.speed.plan.plan_contenders` lists them.
        repeats: rounds; in each, every contender has one turn.
        against: see `SpeedRecord`.

    Raises:
        UserError: the model cannot be built, or does not take such images.
        KeyboardInterrupt: the workers were ended.
    """
    settle_process()
    begun = time.monotonic()
    started = datetime.now(UTC).isoformat(timespec="seconds")
    device = device_name()
    with tempfile.TemporaryDirectory(prefix="spikebench-speed-") as name:
        folder = Path(name)
        facts = _prepare(settings, folder)
        taken = [
            turns
            for (_, mode), phase in groupby(
                contenders, lambda one: (one.subject == "lif", one.mode)
            )
            for turns in _take_turns(list(phase), settings, folder, repeats, mode)
        ]
    return SpeedRecord(
        key=speed_key(settings, list(contenders), device),
        settings=settings,
        against=against,
        optimizer=OPTIMIZER,
        memory=next((turns.built["memory"] for turns in taken if turns.built), ""),
        matmul_size=MATMUL_SIZE,
        layer_shape=LAYER_SHAPE,
        timings=[turns.timing() for turns in taken],
        environment={
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(RECORDED_VARIABLES)
        },
        packages=package_versions(),
        commit=commit(),
        device=device,
        started=started,
        wall_time_s=round(time.monotonic() - begun, 3),
        **facts,
    )


def _prepare(settings: Settings, folder: Path) -> dict[str, Any]:
    log.info("%s: settling norms, counting operations", settings.backbone_name)
    worker = WorkerProcess(None, settings, folder)
    try:
        return worker.ask("prepare")
    except WorkerError as error:
        raise UserError(f"{settings.backbone_name}: {error}") from None
    finally:
        worker.close()


def _take_turns(
    contenders: list[Contender], settings: Settings, folder: Path, repeats: int, mode: str
) -> list[_Turns]:
    with ExitStack() as stack:
        taken = []
        for contender in contenders:  # their imports may overlap
            worker = WorkerProcess(contender, settings, folder)
            stack.callback(worker.close)
            taken.append(_Turns(contender, worker))
        for turns in taken:
            turns.built = turns.ask("build")
            if turns.built:
                seconds = turns.built["warm_up_s"]
                label = f"{turns.contender.work}, {turns.contender.label}"
                log.info(
                    "%s: ready, %.2f s a call (%.2f s the first)", label, seconds[-1], seconds[0]
                )
        for number in range(1, repeats + 1):
            # a line a round and no bar, whose own updates would take time from the contenders
            log.info("%s %s: round %d of %d", settings.backbone_name, mode, number, repeats)
            for turns in taken:
                if turn := turns.ask("measure"):
                    turns.turns.append(turn)
        for turns in taken:
            if turns.contender.has_reference:
                turns.compared = turns.ask("compare")
    return taken

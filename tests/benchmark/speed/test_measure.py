from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from spikebench.errors import UserError
from spikebench.speed import measure
from spikebench.speed.measure import WorkerError, WorkerProcess, measure_speed
from spikebench.speed.record import Contender, Settings

SETTINGS = Settings(
    backbone_name="meta_spikeformer_nano",
    time_steps=2,
    batch_size=2,
    image_size=32,
    num_classes=10,
    device="cpu",
)
FACTS = {"parameters": 7, "dense_macs": 1.0, "firing_rate": None}
ANSWERS = {
    "prepare": FACTS,
    "build": {"warm_up_s": [2.0, 1.0], "model_memory_bytes": 5, "memory": "of this test"},
    "measure": {"seconds": [0.5], "peak_memory_bytes": 9},
    "compare": {"spikes_equal": 0.75},
}


class FakeWorker:
    """Answers at once and notes what it was asked; fails as `broken` says."""

    asked: list[tuple[str, str]] = []
    closed: list[str] = []
    broken: dict[tuple[str, str], BaseException] = {}

    def __init__(self, contender: Contender | None, settings: Settings, folder: Path) -> None:
        self.name = contender.neurons if contender else "-"

    def ask(self, request: str):
        self.asked.append((self.name, request))
        if error := self.broken.get((self.name, request)):
            raise error
        return ANSWERS[request]

    def close(self) -> None:
        self.closed.append(self.name)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> type[FakeWorker]:
    fresh = type("Worker", (FakeWorker,), {"asked": [], "closed": [], "broken": {}})
    monkeypatch.setattr(measure, "WorkerProcess", fresh)
    monkeypatch.setattr(measure, "settle_process", lambda: None)
    return fresh


def contenders(*names: str, **fields) -> list[Contender]:
    return [Contender(neurons=name, **fields) for name in names]


class TestTurns:
    def test_go_round_after_all_were_built(self, worker):
        record = measure_speed(SETTINGS, contenders("a", "b", "c"), 2)
        names = ["a", "b", "c"]
        expected = [
            ("-", "prepare"),
            *((name, "build") for name in names),
            *((name, "measure") for name in names * 2),
            *((name, "compare") for name in names),
        ]
        assert worker.asked == expected
        assert [one.seconds for one in record.timings] == [[[0.5], [0.5]]] * 3
        assert [one.spikes_equal for one in record.timings] == [0.75] * 3
        assert (record.parameters, record.memory) == (7, "of this test")

    def test_are_recorded_with_how_threads_were_used(self, worker, monkeypatch):
        monkeypatch.setenv("GOMP_SPINCOUNT", "7")
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        record = measure_speed(SETTINGS, contenders("a"), 1)
        found = {name: record.environment.get(name) for name in ("GOMP_SPINCOUNT", "PATH")}
        assert found == {"GOMP_SPINCOUNT": "7", "PATH": None}
        assert record.environment["OMP_NUM_THREADS"] == "2"

    def test_of_one_work_end_before_those_of_the_next_begin(self, worker):
        asked = [*contenders("a"), *contenders("b", mode="train")]
        record = measure_speed(SETTINGS, asked, 1)
        assert worker.asked.index(("b", "build")) > worker.asked.index(("a", "compare"))
        assert ("b", "compare") not in worker.asked
        assert record.timings[1].spikes_equal is None

    @pytest.mark.parametrize("request_", ["build", "measure", "compare"])
    def test_of_the_others_go_on_when_one_fails(self, worker, request_: str):
        worker.broken[("a", request_)] = WorkerError("out of memory")
        record = measure_speed(SETTINGS, contenders("a", "b"), 3)
        failed, whole = record.timings
        assert record.failures == [failed]
        assert failed.error == "out of memory"
        assert failed.seconds == failed.peak_memory_bytes == []
        assert len(whole.seconds) == 3
        assert worker.asked.count(("a", request_)) == 1

    def test_leave_no_worker_behind(self, worker):
        worker.broken[("b", "measure")] = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            measure_speed(SETTINGS, contenders("a", "b"), 3)
        assert sorted(worker.closed) == ["-", "a", "b"]

    def test_do_not_begin_where_the_model_cannot_be_built(self, worker):
        worker.broken[("-", "prepare")] = WorkerError("input of 30x30 pixels")
        with pytest.raises(UserError, match="meta_spikeformer_nano.*30x30"):
            measure_speed(SETTINGS, contenders("a"), 3)
        assert worker.asked == [("-", "prepare")]
        assert worker.closed == ["-"]


class TestProcess:
    def test_that_cannot_begin_says_why_in_one_line(self, tmp_path: Path):
        process = WorkerProcess(Contender(neurons="nope"), SETTINGS, tmp_path)
        with pytest.raises(WorkerError, match="'nope'") as caught:
            process.ask("build")
        assert "\n" not in str(caught.value)
        process.close()
        process.close()

    def test_that_is_killed_says_by_what(self, tmp_path: Path):
        process = WorkerProcess(None, SETTINGS, tmp_path)
        os.kill(process._process.pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="SIGKILL"):
            process.ask("prepare")
        process.close()

    def test_lives_through_an_error_of_a_request(self, tmp_path: Path):
        odd = SETTINGS.model_copy(update={"image_size": 40})
        process = WorkerProcess(None, odd, tmp_path)
        for _ in range(2):
            with pytest.raises(WorkerError, match="40x40"):
                process.ask("prepare")
        process.close()
        assert process._process.returncode == -signal.SIGKILL

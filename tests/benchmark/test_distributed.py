from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch.distributed import HashStore

from spikebench import distributed
from spikebench.distributed import ProcessError, Processes, launched
from spikebench.errors import UserError
from spikebench.registry import UnknownNameError
from spikebench.results import Record, find_records
from tests import forkserver
from tests.torchrun import run_python

WORKER = Path(__file__).with_name("distributed_worker.py")
ROOT = Path(__file__).parents[2]
WriteSuite = Callable[..., Path]


def together(count: int, work: Callable[[Processes], object]) -> list[object]:
    """What `work` returns or raises in each of several processes, here threads."""
    store = HashStore()
    found: list[object] = [None] * count

    def run(rank: int) -> None:
        try:
            found[rank] = work(Processes(rank, count, rank, store))
        except Exception as error:
            found[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
        assert not thread.is_alive(), "a process waits for ever"
    return found


class TestProcesses:
    def test_alone_nothing_is_waited_for(self):
        alone = distributed.current()
        assert (alone.rank, alone.count, alone.is_main) == (0, 1, True)
        assert alone.from_main(lambda: 3) == 3
        assert alone.on_main(lambda: 4) == 4
        assert alone.fail("no memory") == ("no memory", True)
        with alone.main_first(), alone.group():
            assert not torch.distributed.is_initialized()

    def test_the_main_process_decides_for_all(self):
        asked = []

        def work(processes: Processes) -> object:
            return processes.from_main(lambda: asked.append(processes.rank) or {"skip": [1, None]})

        assert together(3, work) == [{"skip": [1, None]}] * 3
        assert asked == [0]

    def test_the_others_wait_until_the_main_one_is_done(self):
        done = []

        def work(processes: Processes) -> float | None:
            value = processes.on_main(lambda: time.sleep(0.3) or done.append(1) or 7)
            assert done
            return value

        assert together(2, work) == [7, None]

    @pytest.mark.parametrize("fails", [False, True])
    def test_the_main_process_goes_first(self, fails: bool):
        order = []

        def work(processes: Processes) -> None:
            with processes.main_first():
                if processes.is_main:
                    time.sleep(0.3)
                order.append(processes.rank)
                if fails:
                    raise UserError("no data")

        found = together(3, work)
        assert order[0] == 0
        assert sorted(order) == [0, 1, 2]
        assert [str(each) for each in found] == (["no data"] if fails else ["None"]) * 3

    @pytest.mark.parametrize("how", ["from_main", "on_main"])
    def test_who_waits_hears_of_a_failure(self, how: str):
        def work(processes: Processes) -> bool:
            processes.begin("run")
            try:
                getattr(processes, how)(lambda: 1 / 0)
            except (ZeroDivisionError, ProcessError) as error:
                return processes.fail(str(error))
            return "went on"

        assert together(2, work) == [
            ("division by zero", True),
            ("process 0: division by zero", True),
        ]

    def test_after_a_failure_they_understand_each_other_again(self):
        def work(processes: Processes) -> object:
            processes.begin("first")
            if processes.is_main:
                processes.from_main(lambda: "unheard")
            processes.fail("each for itself")
            processes.begin("second")
            return processes.from_main(lambda: "heard")

        assert together(2, work) == ["heard", "heard"]

    def test_what_fails_all_alike_is_said_as_the_main_one_says_it(self):
        def work(processes: Processes) -> object:
            if processes.is_main:
                time.sleep(0.3)
                return processes.fail("no data (see error.log)")
            processes._fails_first("no data")
            return processes.fail("no data (see error.1.log)")

        assert together(2, work)[0] == ("no data (see error.log)", True)

    def test_who_fails_alone_is_told_so(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(distributed, "_GRACE_S", 0.3)
        found = together(2, lambda it: it.fail("no memory") if it.rank else "busy")
        assert found == ["busy", ("no memory", False)]


class TestLaunched:
    @pytest.fixture(autouse=True)
    def _no_launcher(self, monkeypatch: pytest.MonkeyPatch):
        others = ("SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES")
        for name in (*distributed._PYTORCH, *distributed._SLURM, *others):
            monkeypatch.delenv(name, raising=False)

    @pytest.mark.parametrize("launcher", [None, "none"])
    def test_without_a_launcher_there_is_one_process(self, launcher: str | None):
        with launched(launcher) as processes:
            assert processes.count == 1
            assert distributed.current() is processes

    def test_an_srun_is_not_guessed(self, monkeypatch: pytest.MonkeyPatch):
        for name in distributed._SLURM:
            monkeypatch.setenv(name, "2")
        with launched() as processes:
            assert processes.count == 1

    def test_a_wrong_launcher_is_named(self):
        with pytest.raises(UnknownNameError, match="'slrum'.*'slurm'"):
            launched("slrum").__enter__()

    @pytest.mark.parametrize(
        ("launcher", "message"),
        [
            ("pytorch", "RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT .*: torchrun "),
            ("slurm", "SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID, SLURM_JOB_NODELIST .*: srun "),
        ],
    )
    def test_a_launcher_that_did_not_start_it_is_an_error(self, launcher: str, message: str):
        with pytest.raises(UserError, match=f"--launcher {launcher}: {message}"):
            launched(launcher).__enter__()

    def test_slurm_says_the_same_in_other_words(self, monkeypatch: pytest.MonkeyPatch):
        said = {"PROCID": "3", "NTASKS": "4", "LOCALID": "1", "JOB_NODELIST": "n7,n8"}
        for name, value in said.items():
            monkeypatch.setenv(f"SLURM_{name}", value)
        monkeypatch.setenv("SLURM_JOB_ID", "20017")
        assert distributed._given("slurm") == {
            "RANK": "3",
            "WORLD_SIZE": "4",
            "LOCAL_RANK": "1",
            "MASTER_ADDR": "n7",
            "MASTER_PORT": "20017",
        }
        monkeypatch.setenv("SLURM_STEP_NODELIST", "n8")  # of a step on some of the job's nodes
        monkeypatch.setenv("SLURM_STEP_ID", "2")
        of_step = distributed._given("slurm")
        assert of_step is not None
        assert (of_step["MASTER_ADDR"], of_step["MASTER_PORT"]) == ("n8", "20211")
        monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
        monkeypatch.setenv("MASTER_PORT", "29500")
        given = distributed._given("slurm")
        assert given is not None
        assert (given["MASTER_ADDR"], given["MASTER_PORT"]) == ("10.0.0.1", "29500")

    @pytest.mark.parametrize(("visible", "device"), [("5", "0"), ("4,5", "1"), (None, "1")])
    def test_a_device_that_slurm_bound_is_the_first_of_its_process(
        self, monkeypatch: pytest.MonkeyPatch, visible: str | None, device: str
    ):
        for name in distributed._SLURM:
            monkeypatch.setenv(name, "1")
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        given = distributed._given("slurm")
        assert given is not None
        assert given["LOCAL_RANK"] == device

    def test_nodes_in_brackets_are_scontrols(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(UserError, match=r"n\[07-09\].*MASTER_ADDR"):
            distributed._first_node("n[07-09]")
        command = tmp_path / "scontrol"
        command.write_text('#!/bin/sh\n[ "$1 $2 $3" = "show hostnames n[07-09]" ] && echo n07\n')
        command.chmod(0o755)
        assert distributed._first_node("n[07-09]") == "n07"


class Job:
    """The command in two processes, on a fake task."""

    def __init__(self, folder: Path, write_suite: WriteSuite) -> None:
        self.folder = folder
        self.write_suite = write_suite

    def suite(self, **happens: Sequence[str]) -> Path:
        config = {"notes": str(self.folder), "failing": [], "interrupted": [], "deaf": []}
        return self.write_suite({**config, **happens}, seeds=[0, 1])

    def __call__(self, *options: str, **happens: Sequence[str]) -> subprocess.CompletedProcess[str]:
        suite = self.suite(**happens)
        work = ("--work-dir", self.folder / "work")
        return run_python(WORKER, "run", suite, *work, *options, check=False, timeout=120)

    def notes(self, rank: int) -> list[str]:
        return (self.folder / f"{rank}.txt").read_text().splitlines()

    def records(self) -> dict[int, Record]:
        return {record.seed: record for _, record in find_records(self.folder / "work" / "demo")}


@pytest.fixture
def job(tmp_path: Path, write_suite: WriteSuite) -> Job:
    return Job(tmp_path, write_suite)


def ours(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The last words of each process, without those of torchrun."""
    return [line for line in done.stderr.splitlines() if line.startswith(("error: ", "interr"))]


class TestTheCommand:
    def test_all_train_and_score_and_the_main_one_counts_and_writes(self, job: Job):
        done = job()
        assert done.returncode == 0, done.stderr
        phases = [f"{phase} {seed}" for seed in (0, 1) for phase in ("train", "evaluate", "probe")]
        assert job.notes(0) == phases
        assert job.notes(1) == [phase for phase in phases if not phase.startswith("probe")]
        assert {record.status for record in job.records().values()} == {"finished"}
        assert job.records()[0].device.startswith("2 x ")
        assert done.stdout.count("runs: 2 finished") == 1
        assert done.stderr.count("running in") == 2
        again = job()
        assert again.returncode == 0
        assert again.stdout.count("runs: 0 finished, 2 finished before") == 1
        assert job.notes(0) == phases

    def test_where_all_fail_the_next_run_goes_on(self, job: Job):
        done = job(failing=["train 0 0", "train 0 1"])
        assert done.returncode == 1
        records = job.records()
        assert records[0].error.startswith("RuntimeError: no memory in train (see ")
        assert records[1].status == "finished"
        assert done.stdout.count("runs: 1 finished, 0 finished before, 1 failed") == 1
        assert ours(done) == []

    def test_where_the_main_one_fails_in_counting_the_next_run_goes_on(self, job: Job):
        done = job(failing=["probe 0 0"])
        assert done.returncode == 1
        assert job.records()[0].error.startswith("RuntimeError: no memory in probe")
        assert job.records()[1].status == "finished"

    @pytest.mark.parametrize("rank", [0, 1])
    def test_who_waits_for_one_that_failed_fails_for_its_reason(self, job: Job, rank: int):
        done = job(failing=[f"evaluate 0 {rank}"])
        assert done.returncode == 1
        who = "process 1: " if rank else ""
        assert job.records()[0].error.startswith(f"{who}RuntimeError: no memory in evaluate")
        assert job.records()[1].status == "finished"

    def test_where_one_fails_and_others_do_not_hear_all_end(self, job: Job):
        done = job(failing=["train 0 1"], deaf=["train 0 0"])
        assert done.returncode == 1
        assert job.records()[0].error.startswith("RuntimeError: no memory in train")
        assert 1 not in job.records()
        (line,) = [line for line in ours(done) if line.startswith("error")]
        assert "/toy/seed0: process 1 failed: RuntimeError: no memory in train" in line

    def test_a_wrong_suite_is_one_line(self, job: Job):
        done = job("--set", "sedes=[1]")
        assert done.returncode == 1
        (line,) = ours(done)
        assert line.startswith("error: unknown override 'sedes'")

    def test_an_interrupt_is_one_line(self, job: Job):
        done = job(interrupted=["train 1 0", "train 1 1"])
        assert done.returncode != 0
        assert len(ours(done)) == 1
        assert set(job.records()) == {0}

    def test_a_task_that_knows_one_process_is_not_run(self, job: Job):
        done = job("alone")
        assert done.returncode == 1
        for record in job.records().values():
            assert record.error == (
                "fake runs in one process, and there are 2; run its suite without torchrun or srun"
            )
        assert not (job.folder / "0.txt").exists()

    def test_slurm_starts_it_too(self, job: Job):
        arguments = [str(WORKER), "run", str(job.suite()), "--work-dir", str(job.folder / "work")]
        slurm = {"NTASKS": "2", "JOB_NODELIST": "localhost", "JOB_ID": str(os.getpid())}
        processes = [
            forkserver.Popen(
                [sys.executable, *arguments, "--launcher", "slurm"],
                cwd=ROOT,
                env={
                    **os.environ,
                    "PYTHONPATH": str(ROOT),
                    **{f"SLURM_{name}": value for name, value in slurm.items()},
                    "SLURM_PROCID": str(rank),
                    "SLURM_LOCALID": str(rank),
                },
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            for rank in (0, 1)
        ]
        outputs = [process.communicate(timeout=120) for process in processes]
        assert [process.returncode for process in processes] == [0, 0], outputs
        assert "runs: 2 finished" in outputs[0][0]
        assert outputs[1] == ("", "")
        assert len(job.records()) == 2

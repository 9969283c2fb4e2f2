"""Nothing that is done is lost: killed, interrupted, with a checkpoint cut short."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from spikebench.results import find_records


@pytest.mark.parametrize("task", ["classification", "detection", "segmentation"])
def test_a_killed_run_goes_on_from_its_last_checkpoint(spikebench, task, helpers):
    suite = spikebench.suite(task)
    arguments = ("run", suite, *helpers.few(task, epochs=3))
    work = spikebench.folder / "work_dirs" / "trial"
    process = spikebench.start(*arguments)
    helpers.wait_for(work, "*/epoch*", process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not list(work.glob("*/record.json")), "killed too late to mean anything"

    done = spikebench(*arguments)
    assert done.returncode == 0, done.stderr
    ((_, record),) = find_records(work)
    assert record.status == "finished"
    assert record.resumed
    assert record.metrics
    assert record.operations is not None

    again = spikebench(*arguments)
    assert again.returncode == 0
    assert "1 finished before" in again.stdout


@pytest.mark.parametrize(
    ("task", "stop"),
    [
        ("classification", signal.SIGINT),
        ("classification", signal.SIGTERM),  # Lightning has handlers of its own
        ("detection", signal.SIGINT),
        ("detection", signal.SIGTERM),
    ],
)
def test_an_interrupt_is_one_line_and_leaves_what_is_done(spikebench, task, stop, helpers):
    suite = spikebench.suite(task)
    arguments = ("run", suite, *helpers.few(task, epochs=50))
    process = spikebench.start(*arguments)
    helpers.wait_for(spikebench.folder, "work_dirs/trial/*/epoch*", process)
    process.send_signal(stop)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted: finished records are whole; run again to go on" in err
    assert "Traceback" not in out + err


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_a_truncated_checkpoint_is_named(spikebench, task, helpers):
    suite = spikebench.suite(task)
    data = spikebench.env["SPIKEBENCH_DATA"]  # given as an argument; the environment has another
    spikebench.env["SPIKEBENCH_DATA"] = str(spikebench.folder / "nowhere")
    arguments = ("run", suite, "--data-root", data, *helpers.few(task, epochs=2))
    process = spikebench.start(*arguments)
    checkpoint = helpers.wait_for(spikebench.folder, "work_dirs/trial/*/epoch*", process)
    process.kill()
    process.communicate()
    whole = checkpoint.read_bytes()
    later = checkpoint.with_name(checkpoint.name.replace("0", "1").replace("_1", "_2"))
    later.unlink(missing_ok=True)
    checkpoint.write_bytes(whole[: len(whole) // 2])

    failed = spikebench(*arguments)
    assert failed.returncode == 1
    line = next(line for line in failed.stderr.splitlines() if "failed:" in line)
    assert str(Path("work_dirs/trial")) in line
    assert checkpoint.name in line
    assert "truncated" in line
    assert "delete it" in line
    assert "Traceback" not in failed.stdout + failed.stderr

    checkpoint.unlink()
    assert spikebench(*arguments).returncode == 0
    assert not (spikebench.folder / "nowhere").exists()

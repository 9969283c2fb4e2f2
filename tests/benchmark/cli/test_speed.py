from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spikebench.report import build_site, write_report
from spikebench.speed.record import find_speed_records
from tests import forkserver

SMALL = [
    *("--time-steps", "2", "--batch-size", "2", "--image-size", "32", "--num-classes", "10"),
    *("--backends", "reference"),
]


def spikebench(*arguments: str, **options) -> forkserver.Popen:
    code = "from spikebench.cli import main; main()"
    return forkserver.Popen(
        [sys.executable, "-c", code, "speed", "meta_spikeformer_nano", *SMALL, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        **options,
    )


def test_a_measurement_from_the_command_to_the_page(tmp_path: Path):
    process = spikebench("--repeats", "2", "--out", str(tmp_path))
    out, err = process.communicate()
    assert process.returncode == 0, err
    [(path, record)] = find_speed_records(tmp_path)
    assert out.splitlines()[-1] == f"record: {path}"
    assert "meta_spikeformer_nano: inference (T = 2, batch 2, 32x32 pixels" in out
    assert "meta_spikeformer_nano: training" in out
    works = [timing.contender.work for timing in record.timings]
    assert works == ["inference", "matmul inference", "training"]
    assert all(len(timing.seconds) == 2 and all(timing.seconds) for timing in record.timings)
    assert all(second > 0 for one in record.timings for turn in one.seconds for second in turn)
    assert all(timing.warm_up_s and timing.peak_memory_bytes for timing in record.timings)
    assert [timing.spikes_equal for timing in record.timings] == [1.0, None, None]
    assert record.parameters == 1_130_090
    assert record.environment["OMP_NUM_THREADS"] == "1"
    assert record.firing_rate is not None
    assert 0.05 < record.firing_rate < 0.95

    tables = {table.name: table for table in write_report(tmp_path).tables}
    assert [row.cells["work"] for row in tables["speed"].rows] == ["inference", "training"]
    html = build_site([tmp_path], tmp_path / "site").read_text(encoding="utf-8")
    assert f'href="#speed-{record.key}"' in html


def descendants_of(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


@pytest.mark.parametrize("to_all", [True, False], ids=["ctrl-c", "sigterm"])
def test_an_interruption_ends_the_workers(
    tmp_path: Path, to_all: bool, request: pytest.FixtureRequest
):
    process = spikebench(
        *("--mode", "inference", "--repeats", "1000", "--out", str(tmp_path)),
        start_new_session=True,
    )
    request.addfinalizer(lambda: kill_group(process.pid))  # a test that fails leaves none behind
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if "round 1 of 1000" in line:
            break
    else:
        pytest.fail("".join(seen))
    if to_all:  # as a terminal does
        os.killpg(process.pid, signal.SIGINT)
    else:  # as a scheduler may
        process.terminate()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted: nothing was recorded"
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())
    until = time.monotonic() + 10
    while descendants_of(process.pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not descendants_of(process.pid)

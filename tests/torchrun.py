"""Scripts run as one process, or as several that meet as those of torchrun do."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch.distributed import TCPStore

from tests import forkserver

ROOT = Path(__file__).parents[1]
POLL_S = 0.02


def run_python(
    *arguments: str | Path, processes: int = 2, check: bool = True, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run a script, or a module after -m, to its end, in so many processes on a CPU.

    As torchrun: the launcher keeps the store, output is collected in one place, the others are
    terminated once one failed, and the exit status is 1 if any did.
    """
    command = [sys.executable, *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    if processes == 1:
        done = forkserver.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout
        )
    else:
        done = _together(command, env, processes, time.monotonic() + timeout)
    if check:
        assert done.returncode == 0, done.stderr
    return done


def _together(
    command: Sequence[str], env: Mapping[str, str], processes: int, deadline: float
) -> subprocess.CompletedProcess[str]:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    env = {
        **env,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
    }
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        ranks = [
            forkserver.Popen(
                command,
                cwd=ROOT,
                env={**env, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=out,
                stderr=err,
            )
            for rank in range(processes)
        ]
        codes = _wait(ranks, deadline)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read())
    return subprocess.CompletedProcess(command, int(any(codes)), *texts)


def _wait(ranks: Sequence[forkserver.Popen], deadline: float) -> list[int]:
    """Wait for all; one that fails ends the others, and so does the deadline."""
    while None in (codes := [rank.poll() for rank in ranks]) and not any(codes):
        if time.monotonic() > deadline:
            for rank in ranks:
                rank.kill()
            raise TimeoutError(f"{ranks[0].args} has not ended")
        time.sleep(POLL_S)
    for rank in ranks:
        rank.terminate()  # has no effect on one that ended
    return [rank.wait(30) for rank in ranks]

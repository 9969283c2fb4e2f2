"""Scripts run as one process, or as several that torchrun starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


def run_python(*arguments: str | Path, processes: int) -> subprocess.CompletedProcess[str]:
    """Run a script, or a module after -m, to its end, alone or as two processes on a CPU."""
    launcher = [sys.executable, *(TORCHRUN if processes > 1 else [])]
    done = subprocess.run(
        [*launcher, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done

"""Where somebody else has `benchmark` and `tasks`, Python and the command work as anywhere.

So do MMDetection's and MMSegmentation's own scripts: `test_stock_tools.py`.
"""

from __future__ import annotations

import subprocess
import sys


def python(command, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=command.folder,
        env=command.env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_python_starts_in_silence(foreign_packages):
    done = python(foreign_packages, "-c", "pass")
    assert (done.stdout, done.stderr) == ("", "")


def test_the_command_is_a_module(foreign_packages):
    done = python(foreign_packages, "-m", "spikebench", "list", "tasks")
    assert {"classification", "detection", "segmentation"} <= set(done.stdout.split())
    assert done.stderr == ""


def test_torchrun_starts_it(foreign_packages):
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1")
    done = python(foreign_packages, *launch, "-m", "spikebench", "run", "quickstart", "--dry-run")
    assert done.stdout.count("to do") == 3

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# inputs here are small: threads would only wait for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")
# compiling takes seconds in every process; tests of the other forms ask for them
os.environ.setdefault("SPIKEBENCH_NEURONS", "reference")

# a shell starts background jobs with interrupts ignored, and so would be what tests interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)

if "PYTEST_XDIST_WORKER" not in os.environ:
    # its first import on a machine writes a cache that workers would read half-written
    import yapf  # noqa: F401

collect_ignore = ["third_party"]  # a package of its own: collecting it would register its backbone


@pytest.fixture(scope="session")
def third_party_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site folder into which pip has installed somebody else's package with a backbone.

    For the PYTHONPATH of a subprocess; the backbone is `tiny_spiking_convnet`.
    """
    folder = tmp_path_factory.mktemp("third_party")
    source = shutil.copytree(
        Path(__file__).parent / "third_party" / "spikebench_tiny",
        folder / "source",
        ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"),
    )
    site = folder / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*pip, *offline, "--target", str(site), str(source)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return site

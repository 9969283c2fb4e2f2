from __future__ import annotations

import fcntl
import gc
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
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


def pytest_collection_finish() -> None:
    """Keep what was imported out of garbage collection, which MMEngine does for each data set."""
    gc.collect()
    gc.freeze()


collect_ignore = ["third_party"]  # a package of its own: collecting it would register its backbone


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a folder once for all workers of a session, by calling a function with it."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def make(name: str, fill: Callable[[Path], object]) -> Path:
        folder, done = root / "shared" / name, root / "shared" / f"{name}.done"
        folder.mkdir(parents=True, exist_ok=True)
        with (root / "shared" / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                fill(folder)
                done.touch()
        return folder

    return make


@pytest.fixture(scope="session")
def third_party_site(make_once: Callable[..., Path]) -> Path:
    """A site folder into which pip has installed somebody else's package.

    For the PYTHONPATH of a subprocess; see `third_party/spikebench_tiny`.
    """
    return make_once("third_party", _install_third_party) / "site"


def _install_third_party(folder: Path) -> None:
    source = shutil.copytree(
        Path(__file__).parent / "third_party" / "spikebench_tiny",
        folder / "source",
        ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"),
    )
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*pip, *offline, "--target", str(folder / "site"), str(source)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def scenes_root(make_once: Callable[..., Path]) -> Path:
    """A data root with the digit scenes; not to be written to."""
    from spikebench_tasks.datasets.digit_scenes import ensure_digit_scenes

    return make_once("data", ensure_digit_scenes)

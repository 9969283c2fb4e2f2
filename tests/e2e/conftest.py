"""The command as a person runs it, in processes of its own; see tests/README.md."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import forkserver

ROOT = Path(__file__).parents[2]
CONFIGS = {
    "classification": ROOT / "configs/classification/digits.py",
    "detection": ROOT / "configs/detection/mask_rcnn_digit_scenes.py",
    "segmentation": ROOT / "configs/segmentation/semantic_fpn_digit_scenes.py",
}
EPOCHS = {
    "classification": "trainer.max_epochs",
    "detection": "train_cfg.max_epochs",
    "segmentation": "train_cfg.max_epochs",
}


class Command:
    """`spikebench` with a data root of its own.

    Args:
        folder: suites and work directories land here.
        data: the data root.
        site: a further folder of installed packages.
        fresh: in a new interpreter, in place of a forked one.
    """

    def __init__(
        self, folder: Path, data: Path, site: Path | None = None, *, fresh: bool = False
    ) -> None:
        self.folder = folder
        self.popen = subprocess.Popen if fresh else forkserver.Popen
        self.env = {**os.environ, "SPIKEBENCH_DATA": str(data), "COLUMNS": "200"}
        if site is not None:
            self.env["PYTHONPATH"] = str(site)

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Start the command and go on."""
        program = Path(sys.executable).with_name("spikebench")
        return self.popen(
            [program, *map(str, arguments)],
            cwd=self.folder,
            env=self.env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __call__(
        self, *arguments: str | Path, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Run the command to its end."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def suite(self, *tasks: str, backbone: str = "meta_spikeformer_nano") -> Path:
        """Write a suite of one backbone on some tasks."""
        lines = [f"name: trial\nbackbones: [{backbone}]\ntasks:"]
        lines += [f"  - {{task: {task}, config: {CONFIGS[task]}}}" for task in tasks]
        path = self.folder / "trial.yaml"
        path.write_text("\n".join(lines))
        return path


def few(*tasks: str, images: int = 16, epochs: int = 1) -> list[str]:
    """Options that make a run short."""
    options = ["--limit", str(images)]
    for task in tasks:
        options += ["--set", f"{task}.{EPOCHS[task]}={epochs}"]
    return options


def wait_for(folder: Path, pattern: str, process: subprocess.Popen[str]) -> Path:
    """Wait until a file appears while a process runs."""
    for _ in range(2400):
        found = sorted(folder.glob(pattern))
        if found:
            return found[0]
        if process.poll() is not None:
            pytest.fail(f"ended before it wrote {pattern}: {process.communicate()}")
        time.sleep(0.05)
    process.kill()
    return pytest.fail(f"{pattern} did not appear in {folder}")


@pytest.fixture
def spikebench(tmp_path: Path, scenes_root: Path) -> Command:
    """The command in an empty folder."""
    return Command(tmp_path, scenes_root)


@pytest.fixture
def foreign_packages(spikebench: Command) -> Command:
    """The command in a folder on Python's path that holds somebody else's benchmark and tasks."""
    folder = spikebench.folder
    for name in ("benchmark/__init__.py", "tasks/__init__.py", "tasks.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("raise ImportError('somebody else wrote this')\n")
    spikebench.env["PYTHONPATH"] = str(folder)
    return spikebench


@pytest.fixture(scope="session")
def helpers() -> type:
    """What tests of this folder share."""

    class Helpers:
        Command = Command
        CONFIGS = CONFIGS
        few = staticmethod(few)
        wait_for = staticmethod(wait_for)

    return Helpers

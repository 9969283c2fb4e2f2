"""The configurations run under MMDetection's and MMSegmentation's own scripts, unchanged."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest


def run(package: str, script: str, *arguments: str | Path, env: dict, cwd: Path) -> str:
    folder = Path(importlib.util.find_spec(package).origin).parent / ".mim" / "tools"
    done = subprocess.run(
        [sys.executable, folder / script, *arguments],
        env=env,
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


@pytest.mark.parametrize(
    ("package", "task", "metric"),
    [("mmdet", "detection", "box_map50"), ("mmseg", "segmentation", "miou")],
)
def test_train_and_test(spikebench, helpers, package, task, metric):
    few = [
        "--cfg-options",
        "train_cfg.max_epochs=1",
        *(f"{split}_dataloader.dataset.indices=8" for split in ("train", "val", "test")),
    ]
    config, folder = helpers.CONFIGS[task], spikebench.folder
    options = {"env": spikebench.env, "cwd": folder}
    trained = run(package, "train.py", config, "--work-dir", folder / "out", *few, **options)
    assert "loss" in trained
    checkpoint = folder / "out" / "epoch_1.pth"
    tested = run(
        package, "test.py", config, checkpoint, "--work-dir", folder / "out", *few, **options
    )
    assert metric in tested

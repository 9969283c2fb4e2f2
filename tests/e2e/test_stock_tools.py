"""The configurations run under MMDetection's and MMSegmentation's own scripts, unchanged."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tasks.small import NANO, PATHS, data_of, is_spiking, resolved, short
from tests.tasks.tiny_data import TREES, make_tiny

PACKAGES = {"detection": "mmdet", "segmentation": "mmseg"}
METRICS = {"detection": "box_map50", "segmentation": "miou"}
AT_ONCE = {
    "mask_rcnn_15m_t1_coco",
    "mask_rcnn_digit_scenes",
    "semantic_fpn_15m_t4_ade20k",
    "semantic_fpn_digit_scenes",
}


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
    "path",
    [
        pytest.param(path, id=path.stem, marks=[] if path.stem in AT_ONCE else pytest.mark.slow)
        for path in PATHS
    ],
)
def test_train_and_test(spikebench, path: Path):
    """On two images a split, below `data` where the scripts are started, as is usual with them."""
    folder, task = spikebench.folder, path.parent.name
    _, config = resolved(path)
    for name in data_of(config) & TREES.keys():
        make_tiny(folder / "data", name)
    options = [*short(config), "default_hooks.logger.interval=1"]
    options += [f"{split}_dataloader.dataset.indices=2" for split in ("train", "val", "test")]
    if is_spiking(path):
        options.append(f"model.backbone.name={NANO}")
    given = ["--work-dir", folder / "out", "--cfg-options", *options]
    where = {"env": spikebench.env, "cwd": folder}
    trained = run(PACKAGES[task], "train.py", path, *given, **where)
    assert re.search(r"\bloss: \d+\.\d+", trained)
    (checkpoint,) = (folder / "out").glob("*_1.pth")
    tested = run(PACKAGES[task], "test.py", path, checkpoint, *given, **where)
    assert re.search(rf"\b{METRICS[task]}: \d\.\d+", tested)

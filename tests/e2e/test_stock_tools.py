"""The configurations run under MMDetection's and MMSegmentation's own scripts, unchanged."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from spikebench.results import find_records
from tests import forkserver
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
BY_ITSELF = "mask_rcnn_digit_scenes"
"""The script imports the packages by itself here, where a forked process has them."""


def run(
    package: str,
    script: str,
    *arguments: str | Path,
    env: dict,
    cwd: Path,
    start: Callable[..., subprocess.CompletedProcess] = forkserver.run,
) -> str:
    folder = Path(importlib.util.find_spec(package).origin).parent / ".mim" / "tools"
    done = start(
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
def test_train_and_test(foreign_packages, path: Path):
    """On two images a split, below `data` where the scripts are started, as is usual with them.

    The folder holds somebody else's packages `benchmark` and `tasks`.
    """
    spikebench = foreign_packages
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
    fresh = {"start": subprocess.run} if path.stem == BY_ITSELF else {}
    trained = run(PACKAGES[task], "train.py", path, *given, **where, **fresh)
    assert re.search(r"\bloss: \d+\.\d+", trained)
    (checkpoint,) = (folder / "out").glob("*_1.pth")
    tested = run(PACKAGES[task], "test.py", path, checkpoint, *given, **where)
    assert re.search(rf"\b{METRICS[task]}: \d\.\d+", tested)


def test_augmented_testing_scores_as_the_stock_script_does(spikebench, tmp_path: Path):
    """`tools/test.py --tta` and `tta=True`, on weights that have seen two images."""
    (base,) = (path for path in PATHS if path.stem == "semantic_fpn_digit_scenes")
    config = tmp_path / "segmentation" / "augmented.py"
    config.parent.mkdir()
    config.write_text(
        f"_base_ = [{str(base)!r}]\n"
        # the stock script has this one take the place of the model's own
        "data_preprocessor = _base_.model.data_preprocessor\n"
        "tta_pipeline = [dict(type='LoadImageFromFile'), dict(type='TestTimeAug', transforms=[\n"
        "    [dict(type='Resize', scale=(side, side)) for side in (48, 64, 96)],\n"
        "    [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],\n"
        "    [dict(type='LoadAnnotations')], [dict(type='PackSegInputs')]])]\n"
    )
    options = short(resolved(base)[1])
    options += [f"{split}_dataloader.dataset.indices=4" for split in ("train", "val", "test")]
    given = ["--work-dir", tmp_path / "out", "--cfg-options", *options]
    where = {"env": spikebench.env, "cwd": tmp_path}
    run("mmseg", "train.py", config, *given, **where)
    (weights,) = (tmp_path / "out").glob("*_1.pth")
    plain, stock = (
        run("mmseg", "test.py", config, weights, *flag, *given, **where)
        for flag in ((), ("--tta",))
    )
    ours = spikebench(
        "evaluate",
        config,
        "--weights",
        weights,
        "--set",
        "tta=True",
        "--limit",
        "4",
        "--backbone",
        NANO,
        "--work-dir",
        tmp_path / "ours",
    )
    assert ours.returncode == 0, ours.stderr
    ((_, record),) = find_records(tmp_path / "ours")

    def miou(text: str) -> float:
        return float(re.findall(r"\bmiou: (\d\.\d+)", text)[-1])

    assert miou(stock) != miou(plain)
    assert record.metrics["miou"].value == pytest.approx(miou(stock), abs=5e-5)

"""Several processes do together what one does alone; here two, with Gloo on a CPU."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from spikebench.results import find_records
from spikebench.task import Run
from spikebench_tasks.openmmlab import loop
from tests.tasks.openmmlab.tiny import ROOT, tiny_config, tiny_run
from tests.torchrun import run_python

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("data_root")]

WORKER = Path(__file__).with_name("worker.py")
SGD = {
    "_delete_": True,
    "type": "OptimWrapper",
    "optimizer": {"type": "SGD", "lr": 0.02, "momentum": 0.9},
}


def work(run: Run, processes: int, limits: list[int]) -> list[dict[str, Any]]:
    """Train and score in so many processes; see `worker.train_and_score`."""
    order = run.folder / "order.pkl"
    order.write_bytes(pickle.dumps((run, limits)))
    run_python(WORKER, order, processes=processes)
    return json.loads(order.with_suffix(".json").read_text())


def deterministic(task: str, folder: Path, batch: int, **changes: Any) -> Run:
    """A run whose loss is a mean over images, without anything random but their order."""
    hooks = [{"type": "FreezeNorms"}, {"type": "NoteLoss", "path": str(folder / "losses")}]
    config = tiny_config(task, **{"optim_wrapper": SGD, "custom_hooks": hooks, **changes})
    config["train_dataloader"]["batch_size"] = batch
    pipeline = config["train_dataloader"]["dataset"]["pipeline"]
    config["train_dataloader"]["dataset"]["pipeline"] = [
        step for step in pipeline if step["type"] != "RandomFlip"
    ]
    for head in ("decode_head", "auxiliary_head"):
        config["model"][head]["dropout_ratio"] = 0.0
    return tiny_run(folder, task, config, limit=8)


def curve(run: Run) -> list[float]:
    return [float(line) for line in (run.folder / "losses").read_text().split()]


def weights(run: Run, epoch: int) -> dict[str, torch.Tensor]:
    state = torch.load(run.folder / f"epoch_{epoch}.pth", weights_only=True)["state_dict"]
    return {key: value for key, value in state.items() if value.is_floating_point()}


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return sum(float((one[key] - other[key]).square().sum()) for key in one) ** 0.5


def test_two_processes_train_and_score_as_one(tmp_path: Path):
    """Loss and weights but for rounding, which now and then has a neuron fire or not."""
    runs, scores = [], []
    for processes in (1, 2):
        run = deterministic("segmentation", tmp_path / str(processes), batch=4 // processes)
        scores.append(work(run, processes, limits=[7]))
        runs.append(run)
    alone = curve(runs[0])
    assert len(alone) == 4
    assert abs(alone[-1] - alone[0]) > 0.02 * alone[0]
    assert curve(runs[1]) == pytest.approx(alone, rel=1e-3)
    moved = distance(weights(runs[0], 1), weights(runs[0], 2))
    assert distance(weights(runs[0], 2), weights(runs[1], 2)) < 0.05 * moved
    ((one,), (two,)) = scores
    assert two["counted"] == one["counted"] == [7]
    assert two["metrics"] == pytest.approx(one["metrics"], abs=1e-3)
    folders = [path.name for path in runs[1].folder.iterdir()]
    assert ".collected" not in folders
    assert not (ROOT / ".dist_test").exists()


def test_two_batches_that_are_accumulated_are_one_twice_as_large(tmp_path: Path):
    runs = []
    for batches in (1, 2):
        run = deterministic(
            "segmentation",
            tmp_path / str(batches),
            batch=4 // batches,
            optim_wrapper={**SGD, "accumulative_counts": batches},
            param_scheduler=None,  # it counts batches
        )
        loop.train(run)
        runs.append(run)
    moved = distance(weights(runs[0], 1), weights(runs[0], 2))
    assert distance(weights(runs[0], 2), weights(runs[1], 2)) < 0.05 * moved


def test_two_processes_train_and_score_a_detector(tmp_path: Path):
    """With all that has to do with gradients: mixed precision, accumulation, a moving average."""
    config = tiny_config(
        "detection",
        optim_wrapper={"type": "AmpOptimWrapper", "accumulative_counts": 2},
        custom_hooks=[
            {"type": "EMAHook", "momentum": 0.1},
            {"type": "NoteLoss", "path": str(tmp_path / "losses")},
        ],
        sync_bn="torch",
        find_unused_parameters=True,
    )
    run = tiny_run(tmp_path, "detection", config, limit=6)
    (scores,) = work(run, 2, limits=[5])
    assert scores["counted"] == [5]
    assert len(curve(run)) == 4  # 6 images in batches of 2 for each of 2 processes, twice
    content = torch.load(tmp_path / "epoch_2.pth", weights_only=True)
    assert content["meta"]["processes"] == 2
    alone = run_python(WORKER, tmp_path / "order.pkl", processes=1, check=False)
    assert "epoch_2.pth is of 2 processes, and there are 1; start 2, or delete" in alone.stderr


def test_the_command_does_a_suite_in_two_processes(tmp_path: Path):
    """Torchrun itself starts them: `run_python` does but what it does."""
    (tmp_path / "tiny.json").write_text(json.dumps(tiny_config("segmentation")))
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        "name: two\nbackbones: [meta_spikeformer_nano]\nprofile_images: 3\n"
        "tasks: [{task: segmentation, config: tiny.json}]\n"
    )
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    arguments = ["run", str(suite), "--work-dir", str(tmp_path / "work"), "--limit", "5"]
    done = subprocess.run(
        [sys.executable, *torchrun, "-m", "spikebench", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    ((_, record),) = find_records(tmp_path / "work")
    assert record.status == "finished"
    assert record.device.startswith("2 x ")
    assert (record.dataset.train_samples, record.dataset.test_samples) == (5, 5)
    assert record.operations.images == 5  # a whole batch, of which each process scored a part
    assert record.metrics["miou"].interval is not None
    assert record.per_class["miou"]
    assert {"backbone", "neck", "decode_head"} <= record.energy_by_part["rate-45nm"].keys()
    titles = [line.strip() for line in done.stdout.splitlines()]
    assert titles.count("Segmentation") == done.stdout.count("runs: 1 finished") == 1

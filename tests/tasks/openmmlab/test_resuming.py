from __future__ import annotations

import copy
import itertools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset, DefaultSampler, InfiniteSampler
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import BatchSampler

from spikebench.errors import UserError
from spikebench.weights.loading import WeightsError
from spikebench_tasks.openmmlab import loop
from spikebench_tasks.openmmlab.resuming import ResumedBatches, find_resumption, seed_worker
from tests.tasks.openmmlab.tiny import iterations, tiny_config, tiny_run

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("data_root")]

EMA = [{"type": "EMAHook", "momentum": 0.1}]
BY_ITERATION = {"default_hooks": {"checkpoint": {"by_epoch": False, "interval": 2}}}
# of 6 iterations, 3 an epoch: stopped after which, and gone on from which checkpoint
CASES: dict[str, tuple[dict[str, Any], int, str]] = {
    "epochs": ({}, 5, "epoch_1.pth"),
    "inside an epoch": (BY_ITERATION, 5, "iter_4.pth"),
    "at the end of an epoch": (
        {"default_hooks": {"checkpoint": {"by_epoch": False, "interval": 3}}},
        4,
        "iter_3.pth",
    ),
    "iterations": (iterations(6, 2, infinite=True), 5, "iter_4.pth"),
    "iterations of a sampler that ends": (iterations(6, 2, infinite=False), 5, "iter_4.pth"),
    "mixed precision": ({"optim_wrapper": {"type": "AmpOptimWrapper"}}, 5, "epoch_1.pth"),
    "accumulation": ({"optim_wrapper": {"accumulative_counts": 2}}, 5, "epoch_1.pth"),
    "moving average": ({"custom_hooks": EMA}, 5, "epoch_1.pth"),
}


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch):
    """MMEngine sleeps where a sampler ends."""
    monkeypatch.setattr("mmengine.runner.loops.time.sleep", lambda seconds: None)


def last(folder: Path) -> dict[str, Any]:
    return torch.load(max(folder.glob("*_[26].pth")), weights_only=True)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The images that data sets were asked for."""
    asked: list[int] = []
    load = BaseDataset.__getitem__

    def asking(self: BaseDataset, index: int) -> Any:
        asked.append(index)
        return load(self, index)

    monkeypatch.setattr(BaseDataset, "__getitem__", asking)
    return asked


def train_in_parts(folder: Path, task: str, config: dict[str, Any], stop: int) -> Path:
    stopped = copy.deepcopy(config)
    stopped["custom_hooks"] = [
        *config.get("custom_hooks", []),
        {"type": "StopAt", "iteration": stop},
    ]
    with pytest.raises(KeyboardInterrupt):
        loop.train(tiny_run(folder, task, stopped))
    found = find_resumption(folder, 1)
    assert found is not None
    loop.train(tiny_run(folder, task, config))
    return found.checkpoint


@pytest.mark.parametrize("case", CASES)
def test_who_goes_on_gets_the_weights_of_who_never_stopped(
    tmp_path: Path, case: str, loaded: list[int]
):
    changes, stop, checkpoint = CASES[case]
    config = tiny_config("segmentation", **copy.deepcopy(changes))
    loop.train(tiny_run(tmp_path / "straight", "segmentation", config))
    found = train_in_parts(tmp_path / "parts", "segmentation", config, stop)
    assert found.name == checkpoint
    done = int(found.stem.split("_")[1]) * (3 if found.name.startswith("epoch") else 1)
    assert len(loaded) == 2 * (6 + stop + 6 - done), "images of what was done before were loaded"
    straight, parts = last(tmp_path / "straight"), last(tmp_path / "parts")
    assert straight["meta"]["iter"] == parts["meta"]["iter"] == 6
    for part in ("state_dict", "optimizer", "param_schedulers"):
        assert same(straight[part], parts[part]), part
    assert ("ema_state_dict" in straight) == (case == "moving average")
    if "ema_state_dict" in straight:
        assert same(straight["ema_state_dict"], parts["ema_state_dict"])


def test_a_detector_goes_on_with_all_of_it(tmp_path: Path):
    """Mixed precision, gradients that are not applied yet, and a moving average at once."""
    config = tiny_config(
        "detection",
        optim_wrapper={"type": "AmpOptimWrapper", "accumulative_counts": 2},
        custom_hooks=EMA,
    )
    loop.train(tiny_run(tmp_path / "straight", "detection", config))
    found = train_in_parts(tmp_path / "parts", "detection", config, 4)
    assert torch.load(found, weights_only=True)["gradients"]
    straight, parts = last(tmp_path / "straight"), last(tmp_path / "parts")
    for part in ("state_dict", "ema_state_dict", "optimizer", "param_schedulers"):
        assert same(straight[part], parts[part]), part


def test_what_is_scored_is_the_moving_average(tmp_path: Path):
    run = tiny_run(tmp_path, "segmentation", tiny_config("segmentation", custom_hooks=EMA))
    checkpoint = loop.train(run)
    content = torch.load(checkpoint, weights_only=True)
    name = "decode_head.conv_seg.weight"
    average, trained = content["state_dict"][name], content["ema_state_dict"][f"module.{name}"]
    assert not torch.equal(average, trained)
    probe = loop.probe(run, checkpoint)
    assert torch.equal(probe.model.state_dict()[name], average)
    metrics = loop.evaluate(run, checkpoint).metrics
    alone = tmp_path / "average.pth"
    torch.save({"state_dict": content["state_dict"]}, alone)
    plain = tiny_run(tmp_path, "segmentation", tiny_config("segmentation"))
    assert loop.evaluate(plain, alone).metrics == metrics


class TestFindResumption:
    def test_nothing_began(self, tmp_path: Path):
        assert find_resumption(tmp_path, 1) is None

    def test_the_newest_checkpoint_says_where_it_stopped(self, tmp_path: Path):
        for iteration in (2, 10):
            meta = {"epoch": 1, "iter": iteration}
            torch.save({"meta": meta, "state_dict": {}}, tmp_path / f"iter_{iteration}.pth")
        assert find_resumption(tmp_path, 1) == (tmp_path / "iter_10.pth", 1, 10)

    def test_one_of_other_processes_is_refused(self, tmp_path: Path):
        path = tmp_path / "epoch_1.pth"
        torch.save({"meta": {"epoch": 1, "iter": 3, "processes": 4}}, path)
        assert find_resumption(tmp_path, 4) is not None
        with pytest.raises(UserError, match=f"{path} .*4 .*2"):
            find_resumption(tmp_path, 2)

    def test_weights_alone_are_no_training(self, tmp_path: Path):
        torch.save({"state_dict": {}}, tmp_path / "epoch_1.pth")
        with pytest.raises(WeightsError, match=r"epoch_1\.pth"):
            find_resumption(tmp_path, 1)


class TestResumedBatches:
    @pytest.mark.parametrize("shuffle", [False, True])
    def test_it_begins_where_the_others_stopped(self, shuffle: bool):
        def batches(**options: int) -> list[list[int]]:
            sampler = DefaultSampler(range(7), shuffle=shuffle, seed=3)
            sampler.set_epoch(options.get("epoch", 0))
            return list(ResumedBatches(sampler, 2, **options))

        whole = batches(epoch=1, iteration=4)
        assert len(whole) == 4
        assert batches(epoch=1, iteration=5) == whole[1:]
        assert batches(epoch=1, iteration=8) == []
        assert sorted(sum(whole, [])) == list(range(7))

    def test_the_next_epoch_is_whole(self):
        batches = ResumedBatches(DefaultSampler(range(4), shuffle=False), 2, iteration=1)
        assert list(batches) == [[2, 3]]
        assert list(batches) == [[0, 1], [2, 3]]
        assert len(batches) == 2

    def test_a_sampler_without_end_goes_on(self):
        def first(iteration: int) -> list[list[int]]:
            sampler = InfiniteSampler(range(5), seed=3)
            return list(itertools.islice(ResumedBatches(sampler, 2, iteration=iteration), 4))

        assert first(9) == list(
            itertools.islice(BatchSampler(InfiniteSampler(range(5), seed=3), 2, False), 9, 13)
        )

    def test_other_batch_samplers_are_kept(self):
        images = range(4)
        sampler = DefaultSampler(images, shuffle=False)
        described = {"type": "OddFirst", "drop_last": True}
        batches = ResumedBatches(sampler, 2, batches=described, iteration=1)
        assert list(batches) == [[0, 2]]
        assert batches.drop_last


@DATA_SAMPLERS.register_module()
class OddFirst(BatchSampler):
    def __iter__(self):
        return iter([[1, 3], [0, 2]])


def test_workers_draw_other_numbers_after_each_beginning():
    def drawn(*key: int) -> list[float]:
        torch.manual_seed(key[0])
        seed_worker(0, rank=key[1], iteration=key[2])
        return [random.random(), float(np.random.rand()), float(torch.rand(()))]

    assert drawn(0, 0, 0) == drawn(0, 0, 0)
    seen = [drawn(*key) for key in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))]
    assert len({value for values in seen for value in values}) == 12

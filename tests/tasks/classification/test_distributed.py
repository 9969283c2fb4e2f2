"""Several processes train and score together what one does alone; here two, with Gloo on a CPU."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikebench.registry import UnknownNameError
from spikebench.task import ConfigError, Run
from spikebench_tasks.classification.devices import on_devices
from spikebench_tasks.classification.samplers import EpochShuffle
from spikebench_tasks.classification.task import ClassificationTask
from tests.tasks.small import CONFIGS
from tests.torchrun import run_python

WORKER = Path(__file__).with_name("worker.py")
IMAGES, EPOCHS = 46, 2

Found = list[dict[str, Any]]


def work(
    folder: Path,
    processes: int,
    *overrides: str,
    backbone: str = "without_norms",
    images: int = IMAGES,
) -> Found:
    """What each of so many processes found; see `worker.main`."""
    folder.mkdir()
    batch = 8 // processes
    short = [f"trainer.max_epochs={EPOCHS}", f"data.batch_size={batch}", "model.optimizer.opt=sgd"]
    config = ClassificationTask().resolve(
        CONFIGS / "classification" / "digits.py",
        backbone,
        {},
        [*short, "model.optimizer.lr=0.05", "+trainer.accelerator=cpu", *overrides],
    )
    run = Run(
        key="key",
        suite="test",
        backbone=backbone,
        task="classification",
        protocol="digits",
        seed=0,
        config=config,
        folder=folder,
        tensorboard=folder / "tensorboard" / "name",
        limit=images,
    )
    order = folder / "order.pkl"
    order.write_bytes(pickle.dumps(run))
    run_python(WORKER, order, processes=processes)
    return [json.loads((folder / f"found{rank}.json").read_text()) for rank in range(processes)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    (found,) = work(tmp_path_factory.mktemp("alone") / "run", 1)
    return found


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_train_and_score_as_one(strategy: str, alone: dict[str, Any], tmp_path: Path):
    found = work(tmp_path / "run", 2, f"+trainer.strategy={strategy}")
    steps = IMAGES // 8
    for epoch in range(EPOCHS):
        shares = [one["trained"][23 * epoch : 23 * (epoch + 1)] for one in found]
        assert sorted(shares[0] + shares[1]) == list(range(IMAGES))
        single = alone["trained"][IMAGES * epoch : IMAGES * (epoch + 1)]
        for step in range(steps):
            batch = [index for share in shares for index in share[4 * step : 4 * (step + 1)]]
            assert sorted(batch) == sorted(single[8 * step : 8 * (step + 1)])
    assert sorted(found[0]["scored"] + found[1]["scored"]) == list(range(IMAGES))
    assert sorted(alone["scored"]) == list(range(IMAGES))

    both = np.mean([one["losses"] for one in found], axis=0)
    np.testing.assert_allclose(both, alone["losses"], rtol=1e-4)
    assert {one["sharded"] for one in found} == {strategy == "fsdp"}
    assert found[0]["weights"] == pytest.approx(alone["weights"], rel=1e-4)
    assert found[0]["metrics"] == found[1]["metrics"]
    assert found[0]["metrics"] == pytest.approx(alone["metrics"], abs=1e-3)
    assert found[0]["per_class"] == found[1]["per_class"] == alone["per_class"]

    # a stock Trainer counts no image twice and gives the same figures
    assert sorted(found[0]["scored_by_stock"] + found[1]["scored_by_stock"]) == list(range(IMAGES))
    for one in (*found, alone):
        by_stock = {name: one["stock"][name] for name in one["metrics"]}
        assert by_stock == pytest.approx(one["metrics"], abs=1e-6)


def test_processes_validate_alike_where_one_has_a_batch_more(tmp_path: Path):
    """Both with the same statistics of norms."""
    first, second = work(tmp_path / "run", 2, backbone="with_norms", images=41)
    assert (len(first["statistics"]), len(second["statistics"])) == (EPOCHS * 6, EPOCHS * 5)
    assert set(first["statistics"]) == set(second["statistics"])


class TestShares:
    @pytest.mark.parametrize("count", [10, 11])
    def test_each_item_is_in_one_share(self, count: int):
        shares = [list(EpochShuffle(range(count), 3, 1, (rank, 2))) for rank in range(2)]
        assert len(shares[0]) == len(shares[1]) == count // 2
        assert len({*shares[0], *shares[1]}) == count // 2 * 2
        together = [index for pair in zip(*shares, strict=True) for index in pair]
        assert together == list(EpochShuffle(range(count), 3, 1))[: len(together)]

    def test_other_epochs_leave_out_another(self):
        left_out = {
            next(
                iter(
                    set(range(11)).difference(
                        *(EpochShuffle(range(11), 0, epoch, (r, 2)) for r in (0, 1))
                    )
                )
            )
            for epoch in range(6)
        }
        assert len(left_out) > 1


class TestOptions:
    @pytest.mark.parametrize("asked", [{"devices": 2}, {"devices": [0, 1]}, {"num_nodes": 2}])
    def test_several_devices_of_one_process_are_refused(self, asked: dict[str, Any]):
        with pytest.raises(ConfigError, match=r"trainer\..*torchrun"):
            on_devices(asked)

    def test_an_unknown_strategy(self):
        with pytest.raises(UnknownNameError, match="trainer.strategy 'dpp'.*ddp"):
            on_devices({"strategy": "dpp"})

    def test_a_precision_that_fsdp_has_not(self):
        with pytest.raises(ConfigError, match="'16-mixed'.*fsdp"):
            on_devices({"strategy": "fsdp", "precision": "16-mixed"})

    def test_norms_that_fsdp_has_not(self):
        with pytest.raises(ConfigError, match="sync_batchnorm.*fsdp"):
            on_devices({"strategy": "fsdp", "sync_batchnorm": True})

    def test_one_process_has_one_device(self):
        assert on_devices({"max_epochs": 3, "devices": "auto"}) == {"max_epochs": 3, "devices": 1}

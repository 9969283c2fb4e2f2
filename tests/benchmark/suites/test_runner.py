from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from spikebench.environment import commit, package_versions
from spikebench.errors import UserError
from spikebench.results import RecordError, ResultStore, find_records
from spikebench.suites.runner import run_suite
from tests import forkserver

WriteSuite = Callable[..., Path]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / "work"


def records(work: Path) -> dict:
    return {record.seed: record for _, record in find_records(work / "demo")}


def test_unknown_neurons_are_refused_before_anything_runs(
    fake_task, write_suite: WriteSuite, work: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SPIKEBENCH_NEURONS", "tritn")
    with pytest.raises(UserError, match="'tritn'"):
        run_suite(write_suite({"lr": 0.1}), work)
    assert not work.exists()


class TestAFinishedRun:
    def test_its_record_says_all(self, fake_task, write_suite: WriteSuite, work: Path):
        path = write_suite({"lr": 0.1, "data_root": "/d"}, profile_images=6, seeds=[3])
        outcome = run_suite(path, work, ["fake.lr=0.25"])
        assert outcome.folder == work / "demo"
        assert outcome.finished == ["fake/meta_spikeformer_nano/toy/seed3"]
        assert (outcome.skipped, outcome.failed) == ([], [])

        record = records(work)[3]
        assert record.status == "finished"
        assert (record.suite, record.task, record.protocol) == ("demo", "fake", "toy")
        assert record.backbone_name == record.backbone.name == "meta_spikeformer_nano"
        assert not record.partial
        assert not record.resumed
        assert record.error is None
        assert record.dataset.model_dump() == {
            "name": "toy",
            "split": "test",
            "train_samples": 8,
            "test_samples": 6,
        }
        assert record.config == {
            "lr": 0.25,
            "data_root": "/d",
            "backbone": "meta_spikeformer_nano",
            "arguments": {},
        }
        assert record.packages == package_versions()
        assert record.commit == commit()
        assert record.started.endswith("+00:00")
        assert record.device
        assert set(record.wall_time_s) == {"train", "evaluate", "profile"}
        assert [phase for phase, *_ in fake_task.calls] == ["train", "evaluate", "probe"]

    def test_metrics_have_unit_and_direction_and_every_digit(
        self, fake_task, write_suite: WriteSuite, work: Path, monkeypatch: pytest.MonkeyPatch
    ):
        def evaluate(self, run, checkpoint):
            found = original(self, run, checkpoint)
            intervals = {"score": (0.5, 0.8), "loss": (0.9, 1.1)}
            return found._replace(
                intervals=intervals, per_class={"score": {"cat": 0.5, "dog": 1.0}}
            )

        original = fake_task.evaluate
        monkeypatch.setattr(fake_task, "evaluate", evaluate, raising=False)
        run_suite(write_suite(), work)
        metrics = records(work)[0].metrics
        assert {name: tuple(metric.model_dump().values()) for name, metric in metrics.items()} == {
            "score": (2 / 3, "fraction", True, (0.5, 0.8)),
            "latency": (0.1, "ms", False, None),
        }
        assert records(work)[0].per_class == {"score": {"cat": 0.5, "dog": 1.0}}

    def test_the_checkpoint_is_named_by_its_digest(
        self, fake_task, write_suite: WriteSuite, work: Path
    ):
        run_suite(write_suite(seeds=[5]), work)
        assert records(work)[5].checkpoint_sha256 == hashlib.sha256(b"weights 5").hexdigest()

    def test_operations_are_counted_on_as_many_images_as_asked_for(
        self, fake_task, write_suite: WriteSuite, work: Path
    ):
        run_suite(write_suite(profile_images=5), work)  # batches hold 4
        record = records(work)[0]
        assert record.parameters == 3 * 2 + 2
        assert record.operations.images == 8
        assert record.operations.time_steps == 2
        (row,) = record.operations.rows
        assert row.dense_macs == 3 * 2 / 2  # the layer ran once for an image seen for two steps
        assert row.exact_synaptic_operations == 6
        assert record.energy_mj["rate-45nm"] == pytest.approx(6 * 0.9e-9)
        assert record.energy_by_part.keys() == record.energy_mj.keys()
        for estimator, parts in record.energy_by_part.items():
            assert sum(parts.values()) == pytest.approx(record.energy_mj[estimator])

    def test_no_more_images_are_counted_than_there_are(
        self, fake_task, write_suite: WriteSuite, work: Path
    ):
        run_suite(write_suite(profile_images=1000), work)  # of 6 test images
        assert records(work)[0].operations.images == 8

    def test_it_is_skipped_the_next_time(self, fake_task, write_suite: WriteSuite, work: Path):
        path = write_suite(seeds=[0, 1])
        run_suite(path, work)
        before = {path: path.read_bytes() for path, _ in find_records(work)}
        fake_task.calls.clear()
        outcome = run_suite(path, work)
        assert fake_task.calls == []
        assert len(outcome.skipped) == 2
        assert outcome.finished == []
        assert {path: path.read_bytes() for path, _ in find_records(work)} == before

    def test_only_what_is_new_runs(self, fake_task, write_suite: WriteSuite, work: Path):
        run_suite(write_suite(), work)
        fake_task.calls.clear()
        outcome = run_suite(write_suite(seeds=[0, 1]), work)
        assert {seed for _, _, seed in fake_task.calls} == {1}
        assert (len(outcome.skipped), len(outcome.finished)) == (1, 1)

    def test_a_limit_makes_it_partial_and_another_run(
        self, fake_task, write_suite: WriteSuite, work: Path
    ):
        path = write_suite()
        run_suite(path, work)
        run_suite(path, work, limit=2)
        partial = {record.partial: record for _, record in find_records(work)}
        assert set(partial) == {False, True}
        assert partial[True].key != partial[False].key
        assert partial[True].dataset.test_samples == 2

    def test_what_it_warned_and_logged_is_in_its_folder(
        self, fake_task, write_suite: WriteSuite, work: Path, monkeypatch: pytest.MonkeyPatch
    ):
        def train(self, run):
            warnings.warn("the learning rate is odd", stacklevel=1)
            logging.getLogger("spikebench").warning("epoch 1")
            return original(self, run)

        original = fake_task.train
        monkeypatch.setattr(fake_task, "train", train, raising=False)
        run_suite(write_suite(), work)
        text = (work / "demo" / records(work)[0].key / "run.log").read_text()
        assert "the learning rate is odd" in text
        assert "epoch 1" in text
        assert logging.getLogger("spikebench").handlers == []
        assert logging.getLogger("py.warnings").propagate

    def test_initial_weights_are_named_by_what_they_hold(
        self, fake_task, write_suite: WriteSuite, work: Path, tmp_path: Path
    ):
        weights = tmp_path / "weights"
        weights.write_bytes(b"weights")
        run_suite(write_suite({"start": str(weights), "data_root": "a"}), work)
        assert records(work)[0].config["start"] == {
            "file": "weights",
            "sha256": hashlib.sha256(b"weights").hexdigest(),
        }
        assert str(tmp_path) not in json.dumps(records(work)[0].config)

    def test_a_checkpoint_that_was_there_makes_it_resumed(
        self, fake_task, write_suite: WriteSuite, work: Path
    ):
        path = write_suite()
        fake_task.raises["evaluate"] = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            run_suite(path, work)
        fake_task.raises.clear()
        run_suite(path, work)
        assert records(work)[0].resumed


class TestAFailingRun:
    @pytest.mark.parametrize("phase", ["train", "evaluate", "probe"])
    def test_it_is_recorded_and_the_others_go_on(
        self, fake_task, write_suite: WriteSuite, work: Path, phase: str
    ):
        fake_task.raises[f"{phase}:1"] = RuntimeError("CUDA out of memory.\n  Tried to allocate")
        outcome = run_suite(write_suite(seeds=[0, 1, 2]), work)
        assert outcome.failed == ["fake/meta_spikeformer_nano/toy/seed1"]
        assert len(outcome.finished) == 2
        found = records(work)
        assert [found[seed].status for seed in (0, 1, 2)] == ["finished", "failed", "finished"]
        failed = found[1]
        log = work / "demo" / failed.key / "error.log"
        assert failed.error == (f"RuntimeError: CUDA out of memory. Tried to allocate (see {log})")
        assert "Traceback" in log.read_text()
        assert "in train" in log.read_text() or phase != "train"
        assert failed.metrics == {}
        assert failed.energy_mj == {}
        assert failed.operations is None
        assert failed.config["lr"] == 0.1

    def test_what_a_person_can_mend_is_said_as_it_is(
        self, fake_task, write_suite: WriteSuite, work: Path
    ):
        fake_task.raises["train"] = UserError("a.png is missing;\nget it at x")
        run_suite(write_suite(), work)
        assert records(work)[0].error == "a.png is missing; get it at x"

    def test_it_is_tried_again(self, fake_task, write_suite: WriteSuite, work: Path):
        path = write_suite(seeds=[0, 1])
        fake_task.raises["evaluate:0"] = ValueError("once")
        run_suite(path, work)
        fake_task.raises.clear()
        fake_task.calls.clear()
        outcome = run_suite(path, work)
        assert [seed for phase, _, seed in fake_task.calls if phase == "train"] == [0]
        assert (len(outcome.finished), len(outcome.skipped), len(outcome.failed)) == (1, 1, 0)
        assert records(work)[0].status == "finished"
        assert records(work)[0].error is None

    def test_a_figure_that_is_no_number_is_a_failure(
        self, fake_task, write_suite: WriteSuite, work: Path
    ):
        fake_task.evaluation = {"score": float("nan")}
        run_suite(write_suite(), work)
        record = records(work)[0]
        assert record.status == "failed"
        assert "finite number" in record.error
        assert "\n" not in record.error

    def test_without_a_metric_of_its_task_it_is_a_failure(
        self, fake_task, write_suite: WriteSuite, work: Path
    ):
        fake_task.evaluation = {"loss": 0.1}
        run_suite(write_suite(), work)
        record = records(work)[0]
        assert record.status == "failed"
        assert "'toy' scores loss" in record.error
        assert "score, latency" in record.error

    def test_a_truncated_record_is_named_and_left_alone(
        self, fake_task, write_suite: WriteSuite, work: Path
    ):
        path = write_suite(seeds=[0, 1])
        run_suite(path, work)
        store = ResultStore(work / "demo")
        target = store.path(records(work)[0].key)
        other = store.path(records(work)[1].key).read_bytes()
        target.write_text(target.read_text()[:100])
        with pytest.raises(RecordError, match=str(target)):
            run_suite(path, work)
        assert len(target.read_text()) == 100
        assert store.path(json.loads(other)["key"]).read_bytes() == other


class TestInterruption:
    @pytest.mark.parametrize("phase", ["train", "evaluate", "probe"])
    def test_finished_records_stay_and_the_rest_runs_later(
        self, fake_task, write_suite: WriteSuite, work: Path, phase: str
    ):
        path = write_suite(seeds=[0, 1, 2])
        fake_task.raises[f"{phase}:1"] = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            run_suite(path, work)
        assert set(records(work)) == {0}
        before = records(work)[0]
        fake_task.raises.clear()
        fake_task.calls.clear()
        outcome = run_suite(path, work)
        assert (len(outcome.finished), len(outcome.skipped)) == (2, 1)
        assert {seed for _, _, seed in fake_task.calls} == {1, 2}
        assert records(work)[0] == before

    def test_termination_is_taken_for_ctrl_c(
        self, fake_task, write_suite: WriteSuite, work: Path, monkeypatch: pytest.MonkeyPatch
    ):
        def train(self, run):
            if run.seed == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return original(self, run)

        original = fake_task.train
        monkeypatch.setattr(fake_task, "train", train, raising=False)
        before = signal.getsignal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            run_suite(write_suite(seeds=[0, 1, 2]), work)
        assert set(records(work)) == {0}
        assert signal.getsignal(signal.SIGTERM) is before

    def test_an_interrupt_that_is_swallowed_comes_after_its_run(
        self, fake_task, write_suite: WriteSuite, work: Path, monkeypatch: pytest.MonkeyPatch
    ):
        def train(self, run):
            if run.seed == 1:
                with contextlib.suppress(KeyboardInterrupt):
                    signal.raise_signal(signal.SIGINT)
            return original(self, run)

        original = fake_task.train
        monkeypatch.setattr(fake_task, "train", train, raising=False)
        with pytest.raises(KeyboardInterrupt):
            run_suite(write_suite(seeds=[0, 1, 2]), work)
        assert set(records(work)) == {0, 1}

    def test_termination_works_where_ctrl_c_is_ignored(self):
        """As in the background of a script: its shell has these processes ignore SIGINT."""
        code = (
            "import os, signal, sys\n"
            "from spikebench.suites.runner import _interruptible\n"
            "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
            "try:\n"
            "    with _interruptible() as interrupts:\n"
            "        os.kill(os.getpid(), signal.SIGINT)\n"
            "        os.kill(os.getpid(), signal.SIGTERM)\n"
            "except KeyboardInterrupt:\n"
            "    sys.exit(42 if interrupts == [signal.SIGTERM] else 1)\n"
        )
        assert forkserver.run([sys.executable, "-c", code]).returncode == 42


class TestSeveralViews:
    def test_the_energy_of_an_image_is_of_all_of_them(
        self, fake_task, write_suite: WriteSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        meter = "spikebench.energy.meters.measured_mj_per_image"
        monkeypatch.setattr(meter, lambda *_, **__: {"a meter": 2.0})
        once, thrice = tmp_path / "once", tmp_path / "thrice"
        run_suite(write_suite(), once)
        probe = fake_task.probe
        monkeypatch.setattr(
            fake_task, "probe", lambda *given: probe(*given)._replace(views=3), raising=False
        )
        run_suite(write_suite(), thrice)
        (one,), (three,) = records(once).values(), records(thrice).values()
        assert (one.views, three.views) == (1, 3)
        assert three.energy_mj == pytest.approx({k: 3 * v for k, v in one.energy_mj.items()})
        assert one.energy_mj["lemaire-45nm"] > 0
        for name, parts in one.energy_by_part.items():
            expected = {part: 3 * energy for part, energy in parts.items()}
            assert three.energy_by_part[name] == pytest.approx(expected)
        assert (one.measured_energy_mj, three.measured_energy_mj) == (
            {"a meter": 2.0},
            {"a meter": 6.0},
        )
        assert three.operations.dense_macs == one.operations.dense_macs
        assert three.operations.images >= 3 * 6


class TestTheWorkFolder:
    @pytest.mark.parametrize("below", ["", "deeper"])
    def test_one_that_cannot_be_written_is_named(
        self, fake_task, write_suite: WriteSuite, tmp_path: Path, below: str
    ):
        (tmp_path / "file").write_text("not a folder")
        work = tmp_path / "file" / below
        with pytest.raises(UserError) as caught:
            run_suite(write_suite(), work)
        assert str(work / "demo") in str(caught.value)
        assert "--work-dir" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert fake_task.calls == []

    def test_nothing_but_runs_is_left_in_it(self, fake_task, write_suite: WriteSuite, work: Path):
        run_suite(write_suite(), work)
        key = records(work)[0].key
        assert [path.name for path in (work / "demo").iterdir()] == [key]
        assert sorted(path.name for path in (work / "demo" / key).iterdir()) == [
            "epoch_1.pth",
            "record.json",
            "run.log",
        ]

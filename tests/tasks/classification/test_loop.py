from __future__ import annotations

import csv
import dataclasses
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spikebench import build_classifier, profile_operations
from spikebench.backbones.classifier import Classifier
from spikebench.errors import UserError
from spikebench.neurons import use_backend
from spikebench.registry import UnknownNameError
from spikebench.task import ConfigError, Run
from spikebench.weights.loading import WeightsError
from spikebench_tasks.checkpoints import latest_checkpoint
from spikebench_tasks.classification import loop
from spikebench_tasks.classification.callbacks import StopAtNaN, WholeFiles
from spikebench_tasks.classification.datasets.digits import Digits
from spikebench_tasks.classification.module import ClassificationModule
from spikebench_tasks.classification.task import ClassificationTask

LIMIT = 40
STEPS = 3  # an epoch of 40 images in batches of 16

pytestmark = pytest.mark.filterwarnings("ignore")


def calibration_error(logits: np.ndarray, right: np.ndarray, bins: int = 15) -> float:
    """Guo et al., ICML 2017, equation 3."""
    shares = np.exp(logits - logits.max(1, keepdims=True))
    confidence = (shares / shares.sum(1, keepdims=True)).max(1)
    edges = np.linspace(0, 1, bins + 1)
    inside = [(low <= confidence) & (confidence < high) for low, high in pairwise(edges)]
    return sum(abs((right[one] - confidence[one]).sum()) for one in inside) / len(right)


def wilson(share: float, count: int, z: float = 1.959964) -> tuple[float, float]:
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * np.sqrt(share * (1 - share) / count + z * z / (4 * count**2)) / (1 + z * z / count)
    return centre - half, centre + half


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    """Lightning has the process ignore Ctrl-C after the first."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def new_run(configs: dict[str, Path], make_run: Callable[..., Run]) -> Callable[..., Run]:
    def make(epochs: int, *overrides: str, seed: int = 0) -> Run:
        short = [f"trainer.max_epochs={epochs}", "model.time_steps=1", "data.batch_size=16"]
        config = ClassificationTask().resolve(
            configs["classification"], "meta_spikeformer_nano", {}, [*short, *overrides]
        )
        return make_run("classification", config, limit=LIMIT, seed=seed)

    return make


@pytest.fixture(scope="module")
def trained_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trained")


@pytest.fixture
def trained(new_run: Callable[..., Run], trained_folder: Path) -> tuple[Run, Path]:
    """A run of one epoch, trained once for all tests; not to be written to."""
    made = new_run(1)
    run = dataclasses.replace(
        made, folder=trained_folder / "run", tensorboard=trained_folder / "tensorboard" / "name"
    )
    checkpoint = run.folder / "epoch=0.ckpt"
    if not checkpoint.exists():
        run.folder.mkdir()
        assert loop.train(run) == checkpoint
    return run, checkpoint


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The epoch of every training step that is taken."""
    taken: list[int] = []
    original = ClassificationModule.training_step

    def training_step(self, batch, batch_idx):
        taken.append(self.current_epoch)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(ClassificationModule, "training_step", training_step)
    return taken


def continued(trained: tuple[Run, Path], run: Run) -> Run:
    """`run`, with the checkpoint that another left."""
    shutil.copy(trained[1], run.folder)
    return run


def logged(run: Run) -> dict[str, list[float]]:
    columns: dict[str, list[float]] = {}
    for path in run.folder.rglob("metrics.csv"):
        with path.open() as stream:
            for row in csv.DictReader(stream):
                for name, value in row.items():
                    if value:
                        columns.setdefault(name, []).append(float(value))
    return columns


class TestTrain:
    def test_the_checkpoint_holds_the_trained_weights_and_no_code(self, trained):
        run, checkpoint = trained
        content = torch.load(checkpoint, weights_only=True)
        assert content["epoch"] == 0
        assert content["global_step"] == STEPS
        fresh = build_classifier("meta_spikeformer_nano", 10).state_dict()
        weights = {
            name.removeprefix("model."): value
            for name, value in content["state_dict"].items()
            if name.startswith("model.")
        }
        assert weights.keys() == fresh.keys()
        torch.manual_seed(run.seed)
        module, _ = loop._build(run)
        assert not torch.equal(weights["head.weight"], module.model.head.weight)

    def test_it_goes_on_from_the_checkpoint(self, trained, new_run, steps):
        run = continued(trained, new_run(2))
        final = loop.train(run)
        assert steps == [1] * STEPS
        assert final == run.folder / "epoch=1.ckpt"
        content = torch.load(final, weights_only=True)
        assert (content["epoch"], content["global_step"]) == (1, 2 * STEPS)

    def test_it_goes_on_from_the_weights_and_moments_of_the_checkpoint(
        self, trained, new_run, monkeypatch: pytest.MonkeyPatch
    ):
        seen: dict = {}

        def on_train_start(self):
            seen["weights"] = {k: v.clone() for k, v in self.state_dict().items()}
            seen["steps"] = [s["step"].item() for s in self.optimizers().state.values()]

        monkeypatch.setattr(ClassificationModule, "on_train_start", on_train_start)
        loop.train(continued(trained, new_run(2)))
        saved = torch.load(trained[1], weights_only=True)["state_dict"]
        assert all(torch.equal(seen["weights"][name], value) for name, value in saved.items())
        assert set(seen["steps"]) == {STEPS}

    def test_what_is_trained_is_not_trained_again(self, trained, new_run, steps):
        run = continued(trained, new_run(1))
        before = (run.folder / "epoch=0.ckpt").read_bytes()
        assert loop.train(run) == run.folder / "epoch=0.ckpt"
        assert steps == []
        assert (run.folder / "epoch=0.ckpt").read_bytes() == before

    @pytest.mark.parametrize("kept", [0, 1000, -1])
    def test_a_truncated_checkpoint_is_named_in_one_line(self, trained, new_run, steps, kept: int):
        run = new_run(2)
        path = run.folder / "epoch=0.ckpt"
        path.write_bytes(trained[1].read_bytes()[:kept])
        with pytest.raises(WeightsError) as caught:
            loop.train(run)
        assert str(caught.value).startswith(f"{path} cannot be read as weights")
        assert "\n" not in str(caught.value)
        assert steps == []

    def test_ctrl_c_leaves_whole_checkpoints_and_is_passed_on(
        self, new_run, monkeypatch: pytest.MonkeyPatch
    ):
        original = ClassificationModule.training_step

        def interrupted(self, batch, batch_idx):
            if self.current_epoch == 1:
                raise KeyboardInterrupt
            return original(self, batch, batch_idx)

        monkeypatch.setattr(ClassificationModule, "training_step", interrupted)
        run = new_run(3)
        with pytest.raises(KeyboardInterrupt):
            loop.train(run)
        (path,) = run.folder.glob("*.ckpt")
        assert torch.load(path, weights_only=True)["epoch"] == 0

    @pytest.mark.parametrize("seed", [0, 1])
    def test_the_seed_decides_where_it_starts(self, new_run, seed: int):
        torch.manual_seed(99)
        first, _ = loop._build(new_run(1, seed=seed))
        second, _ = loop._build(new_run(1, seed=seed))
        other, _ = loop._build(new_run(1, seed=seed + 1))
        weights = [module.model.head.weight for module in (first, second, other)]
        assert torch.equal(weights[0], weights[1])
        assert not torch.equal(weights[0], weights[2])

    def test_without_a_finished_epoch_there_is_no_result(self, new_run):
        with pytest.raises(RuntimeError, match="no checkpoint"):
            loop.train(new_run(0))


class TestCheckpointsAreWhole:
    def test_one_that_is_cut_off_leaves_the_old_one(self, tmp_path: Path, monkeypatch):
        """As where the temporary folder is on another disk: moving is then a copy."""
        path = tmp_path / "epoch=0.ckpt"
        files = WholeFiles()
        files.save_checkpoint({"a": torch.zeros(3)}, path)

        def cut_off(source, target, *_, **__):
            Path(target).write_bytes(Path(source).read_bytes()[:50])
            raise KeyboardInterrupt

        monkeypatch.setattr(shutil, "move", cut_off)
        with pytest.raises(KeyboardInterrupt):
            files.save_checkpoint({"a": torch.ones(3)}, path)
        assert torch.equal(torch.load(path, weights_only=True)["a"], torch.zeros(3))
        assert latest_checkpoint(tmp_path) == path

    def test_the_trainer_writes_them_so(self, new_run, monkeypatch: pytest.MonkeyPatch):
        names = []
        replace = os.replace
        monkeypatch.setattr(
            Path,
            "replace",
            lambda self, target: names.append((self.name, target.name)) or replace(self, target),
        )
        loop.train(new_run(1))
        assert (".epoch=0.ckpt.part", "epoch=0.ckpt") in names


class TestResuming:
    @pytest.mark.parametrize(
        "overrides",
        [
            [],
            ["+ema={decay: 0.5}"],
            ["data.num_workers=2"],
            ["+model.mixup={mixup_alpha: 0.5}", "+trainer.accumulate_grad_batches=3"],
        ],
    )
    def test_it_is_exact(
        self, new_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str]
    ):
        """Two epochs at once, and two with a kill in the second: the same to the bit."""

        def run_in(name: str) -> Run:
            run = dataclasses.replace(new_run(2, *overrides), folder=tmp_path / name)
            run.folder.mkdir()
            run.config["model"]["arguments"] = {"drop_path": 0.3}
            return run

        whole, parted = run_in("whole"), run_in("parted")
        loop.train(whole)
        taken: list[int] = []

        def training_step(self, batch, batch_idx):
            taken.append(batch_idx)
            if len(taken) == STEPS + 2:
                raise RuntimeError("killed")
            return original(self, batch, batch_idx)

        original = ClassificationModule.training_step
        with monkeypatch.context() as patched:
            patched.setattr(ClassificationModule, "training_step", training_step)
            with pytest.raises(RuntimeError, match="killed"):
                loop.train(parted)
        assert latest_checkpoint(parted.folder) == parted.folder / "epoch=0.ckpt"
        loop.train(parted)
        ends = [
            torch.load(run.folder / "epoch=1.ckpt", weights_only=True) for run in (whole, parted)
        ]
        assert ("current_model_state" in ends[0]) == ("+ema={decay: 0.5}" in overrides)
        for key in {"state_dict", "current_model_state"} & ends[0].keys():
            first, second = (end[key] for end in ends)
            assert first.keys() == second.keys()
            assert all(first[name].equal(second[name]) for name in first)

    def test_a_moving_average_is_saved_and_scored(self, new_run):
        run = new_run(1)
        run.config["ema"] = {"decay": 0.5}
        checkpoint = loop.train(run)
        content = torch.load(checkpoint, weights_only=True)
        mean, last = content["state_dict"], content["current_model_state"]
        assert not mean["model.head.weight"].equal(last["model.head.weight"])
        model, *_ = loop.probe(run, checkpoint)
        assert model.head.weight.equal(mean["model.head.weight"])


class TestDivergence:
    @pytest.fixture
    def diverging(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Training whose loss is NaN from its fifth step on."""
        original, taken = ClassificationModule.training_step, []

        def training_step(self, batch, batch_idx):
            taken.append(batch_idx)
            return original(self, batch, batch_idx) * (torch.nan if len(taken) > 4 else 1)

        monkeypatch.setattr(ClassificationModule, "training_step", training_step)

    @pytest.mark.usefixtures("diverging")
    @pytest.mark.parametrize("every", [1, 10])
    def test_it_is_one_line_with_step_rate_and_checkpoint(self, new_run, every: int):
        """Also where losses are read less often than checkpoints are written."""
        run = new_run(3, f"+trainer.log_every_n_steps={every}")
        last = re.escape(str(run.folder / "epoch=0.ckpt"))
        with pytest.raises(UserError, match=f"step 5 .* nan; .* rate was .*; .* {last}") as caught:
            loop.train(run)
        assert "\n" not in str(caught.value)
        assert latest_checkpoint(run.folder) == run.folder / "epoch=0.ckpt"

    @pytest.mark.usefixtures("diverging")
    def test_no_checkpoint_is_written_after_it_within_an_epoch(self, new_run, monkeypatch):
        def saves_each_step(self, trainer, *_):
            trainer.save_checkpoint(run.folder / f"iter_{trainer.global_step}.ckpt")

        monkeypatch.setattr(StopAtNaN, "on_train_batch_end", saves_each_step)
        run = new_run(3, "+trainer.log_every_n_steps=100")
        with pytest.raises(UserError, match="step 5 "):
            loop.train(run)
        steps = sorted(int(path.stem[5:]) for path in run.folder.glob("iter_*.ckpt"))
        assert steps == [1, 2, 3, 4]

    def test_weights_that_are_not_finite_are_not_saved(self, new_run, monkeypatch):
        def breaks(self, trainer, module):
            module.model.head.weight.data[0, 0] = torch.inf

        monkeypatch.setattr(StopAtNaN, "on_validation_start", breaks)
        run = new_run(1)
        with pytest.raises(UserError, match=r"model\.head\.weight is not finite"):
            loop.train(run)
        assert latest_checkpoint(run.folder) is None

    @pytest.mark.parametrize("name", ["running_mean", "running_var"])
    def test_statistics_that_are_not_finite_are_not_saved(self, new_run, monkeypatch, name: str):
        def breaks(self, trainer, module):
            norm = next(each for each in module.modules() if hasattr(each, "running_mean"))
            getattr(norm, name)[0] = torch.nan

        monkeypatch.setattr(StopAtNaN, "on_validation_start", breaks)
        with pytest.raises(UserError, match=rf"{name} is not finite"):
            loop.train(new_run(1))

    def test_other_state_is_saved_as_it_is(self, new_run, monkeypatch: pytest.MonkeyPatch):
        """Such as a causal mask of infinities, and state that is no tensor."""
        original = loop._module

        def with_state(*arguments):
            module = original(*arguments)
            module.model.register_buffer("mask", torch.full((2, 2), -torch.inf).triu(1))
            return module

        monkeypatch.setattr(loop, "_module", with_state)
        monkeypatch.setattr(Classifier, "get_extra_state", lambda self: {"seen": 3})
        saved = torch.load(loop.train(new_run(1)), weights_only=True)["state_dict"]
        assert saved["model.mask"].isneginf().any()
        assert saved["model._extra_state"] == {"seen": 3}

    def test_losses_are_not_read_at_every_step(self, new_run, monkeypatch: pytest.MonkeyPatch):
        """Each reading would make a GPU wait."""
        read: list[int] = []

        class Loss(torch.Tensor):
            @classmethod
            def __torch_function__(cls, func, types, args=(), kwargs=None):
                if func in (torch.Tensor.item, torch.Tensor.__float__, torch.Tensor.__bool__):
                    read.append(1)
                return super().__torch_function__(func, types, args, kwargs or {})

        original = ClassificationModule.training_step
        monkeypatch.setattr(
            ClassificationModule,
            "training_step",
            lambda self, *step: original(self, *step).as_subclass(Loss),
        )
        counts = []
        for every in (1, 10):
            read.clear()
            run = new_run(1, "data.batch_size=2", f"+trainer.log_every_n_steps={every}")
            loop.train(dataclasses.replace(run, folder=run.folder / str(every)))
            counts.append(len(read))
        often, seldom = counts
        assert often >= LIMIT // 2
        assert 0 < seldom <= often / 5


class TestTrainerOptions:
    """What a configuration says of the Trainer, it does."""

    def test_what_holds_where_nothing_is_said_can_be_said(self, new_run, steps):
        options = ("log_every_n_steps=1", "limit_train_batches=2")
        run = new_run(1, *(f"+trainer.{option}" for option in options))
        loop.train(run)
        assert len(steps) == 2
        (path,) = run.folder.glob("csv/**/*.csv")
        with path.open() as file:
            logged = [row for row in csv.DictReader(file) if row["train/loss"]]
        assert len(logged) == 2  # not one in ten steps

    def test_a_misspelt_one_suggests_another(self, new_run):
        with pytest.raises(UnknownNameError, match="'max_epoch'.*'max_epochs'"):
            loop.train(new_run(1, "+trainer.max_epoch=3"))

    @pytest.mark.parametrize("option", ["logger=False", "enable_checkpointing=False"])
    def test_what_a_run_sets_itself_is_refused(self, new_run, option: str):
        with pytest.raises(ConfigError, match=rf"trainer\.{option.split('=')[0]} "):
            loop.train(new_run(1, f"+trainer.{option}"))

    @pytest.mark.parametrize("batches", [1, 2])
    def test_gradients_are_accumulated(self, new_run, steps, batches: int):
        checkpoint = loop.train(new_run(1, f"+trainer.accumulate_grad_batches={batches}"))
        state = torch.load(checkpoint, weights_only=True)
        assert state["global_step"] == -(-len(steps) // batches)

    @pytest.mark.parametrize(("precision", "lower"), [("32-true", False), ("bf16-mixed", True)])
    def test_precision(self, new_run, monkeypatch, precision: str, lower: bool):
        seen = set()
        original = ClassificationModule.training_step

        def training_step(self, batch, batch_idx):
            seen.add(torch.is_autocast_enabled("cpu"))
            return original(self, batch, batch_idx)

        monkeypatch.setattr(ClassificationModule, "training_step", training_step)
        checkpoint = loop.train(new_run(1, f"trainer.precision={precision}"))
        assert seen == {lower}
        state = torch.load(checkpoint, weights_only=True)["state_dict"]
        assert state["model.head.weight"].dtype == torch.float32


class TestEvaluate:
    def test_metrics_are_those_of_an_independent_count(self, trained, tmp_path: Path):
        """Of random weights, with statistics of the images: they predict more than one class."""
        run, _ = trained
        images, labels = zip(*Digits("test", limit=LIMIT), strict=True)
        torch.manual_seed(0)
        model = build_classifier("meta_spikeformer_nano", 10)
        for norm in (m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)):
            norm.momentum = None
        with torch.no_grad():
            model.head.weight.normal_()
            model(torch.stack(images))
            logits = model.eval()(torch.stack(images)).numpy()
        checkpoint = tmp_path / "other.pth"
        torch.save(model.state_dict(), checkpoint)
        metrics, dataset, intervals, per_class, by_time_steps = loop.evaluate(run, checkpoint)
        ranked = np.argsort(-logits, axis=1)
        assert len(set(ranked[:, 0])) > 3
        hits = ranked == np.array(labels)[:, None]
        assert metrics == {
            "top1": pytest.approx(hits[:, :1].sum() / LIMIT, abs=1e-7),
            "top5": pytest.approx(hits[:, :5].sum() / LIMIT, abs=1e-7),
            "ece": pytest.approx(calibration_error(logits, hits[:, 0]), abs=1e-6),
        }
        assert intervals == {
            name: pytest.approx(wilson(metrics[name], LIMIT), abs=1e-6) for name in ("top1", "top5")
        }
        assert per_class == {
            "top1": {
                str(digit): pytest.approx(hits[np.array(labels) == digit, 0].mean(), abs=1e-6)
                for digit in sorted(set(labels))
            }
        }
        assert by_time_steps == {}  # of T = 1
        with Image.open(run.folder / "confusion.png") as picture:
            assert min(picture.size) > 300
        assert 0 < metrics["top5"] < 1
        assert dataset.model_dump() == {
            "name": "digits",
            "split": "test",
            "train_samples": LIMIT,
            "test_samples": LIMIT,
        }

    def test_without_a_limit_it_is_of_the_whole_split(self, trained):
        run, checkpoint = trained
        _, dataset, *_ = loop.evaluate(dataclasses.replace(run, limit=None), checkpoint)
        assert (dataset.train_samples, dataset.test_samples) == (1442, 355)

    def test_ctrl_c_is_passed_on(self, trained, monkeypatch: pytest.MonkeyPatch):
        def interrupted(self, batch, batch_idx):
            raise KeyboardInterrupt

        monkeypatch.setattr(ClassificationModule, "test_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            loop.evaluate(*trained)


@pytest.mark.usefixtures("as_runs_compute")
def test_users_neurons_train_score_and_count(new_run):
    """From end to end with the compiled neurons that runs take."""
    run = new_run(1, "model.time_steps=2")
    checkpoint = loop.train(run)
    metrics, *_, by_time_steps = loop.evaluate(run, checkpoint)
    assert by_time_steps["top1"][-1] == metrics["top1"]
    probe = loop.probe(run, checkpoint)
    batches = [batch[:2] for batch in list(probe.batches)[:1]]
    report = profile_operations(
        probe.model, batches, forward=probe.forward, time_steps=probe.backbone.time_steps
    )
    assert report.synaptic_operations > 0
    with use_backend("reference"):
        reference = loop.evaluate(run, checkpoint)
    assert reference.metrics["top1"] == pytest.approx(metrics["top1"], abs=1.5 / LIMIT)


class TestProbe:
    def test_it_gives_the_trained_model_and_test_images(self, trained):
        run, checkpoint = trained
        probe = loop.probe(run, checkpoint)
        saved = torch.load(checkpoint, weights_only=True)["state_dict"]
        assert torch.equal(probe.model.head.weight, saved["model.head.weight"])
        batches = list(probe.batches)
        assert len(list(probe.batches)) == len(batches) > 0
        assert sum(len(batch) for batch in batches) == LIMIT
        assert torch.equal(batches[0][0], Digits("test", limit=1)[0][0])
        assert probe.forward(probe.model, batches[0]).shape == (16, 10)
        info = probe.backbone
        assert (info.name, info.time_steps, info.arguments) == ("meta_spikeformer_nano", 1, {})
        backbone = sum(p.numel() for p in probe.model.backbone.parameters())
        assert info.parameters == backbone < sum(p.numel() for p in probe.model.parameters())

    def test_its_operations_can_be_counted(self, trained):
        probe = loop.probe(*trained)
        batches = [batch[:2] for batch in list(probe.batches)[:1]]
        report = profile_operations(
            probe.model, batches, forward=probe.forward, time_steps=probe.backbone.time_steps
        )
        assert report.images == 2
        assert report.synaptic_operations > 0


class TestLogs:
    def test_tensorboard_holds_the_course_of_training(self, trained):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        run, _ = trained
        events = EventAccumulator(str(run.tensorboard))
        events.Reload()
        assert "val/top1" in events.Tags()["scalars"]

    def test_no_part_of_a_run_deletes_the_figures_of_another(self, new_run):
        run = new_run(1)
        loop.train(run)
        first = logged(run)["val/top1"]
        later = dataclasses.replace(run, config=new_run(2).config)
        checkpoint = loop.train(later)
        metrics, *_ = loop.evaluate(later, checkpoint)
        columns = logged(run)
        assert len(first) == 1
        assert len(columns["val/top1"]) == 2
        assert columns["top1"] == [pytest.approx(metrics["top1"])]

    def test_progress_is_said_where_there_is_no_terminal(
        self, new_run, caplog: pytest.LogCaptureFixture
    ):
        caplog.set_level("INFO", logger="spikebench")
        run = new_run(1)
        loop.train(run)
        (line,) = [one for one in caplog.messages if one.startswith(run.title)]
        assert line.startswith(f"{run.title} {STEPS}/{STEPS} loss=")

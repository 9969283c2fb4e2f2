from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from PIL import Image

from spikebench import profile_operations
from spikebench.errors import UserError
from spikebench.task import ConfigError, Run
from spikebench.weights.loading import WeightsError
from spikebench_tasks.openmmlab import loop
from spikebench_tasks.openmmlab.task import OpenMMLabTask

LIMIT = 8
TASKS = ("detection", "segmentation")

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("data_root")]


@pytest.fixture
def new_run(configs: dict[str, Path], make_run: Callable[..., Run]) -> Callable[..., Run]:
    def make(task: str, epochs: int = 2, seed: int = 0, *overrides: str) -> Run:
        config = OpenMMLabTask().resolve(
            configs[task],
            "meta_spikeformer_nano",
            {},
            [f"train_cfg.max_epochs={epochs}", "train_dataloader.batch_size=4", *overrides],
        )
        return make_run(task, config, limit=LIMIT, seed=seed)

    return make


@pytest.fixture(scope="module")
def trained_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trained")


@pytest.fixture
def trained(new_run: Callable[..., Run], trained_folder: Path) -> Callable[[str], Run]:
    """A run of two epochs, trained once for all tests; not to be written to."""

    def of(task: str) -> Run:
        run = dataclasses.replace(
            new_run(task), folder=trained_folder / task, tensorboard=trained_folder / "board" / task
        )
        if not run.folder.exists():
            run.folder.mkdir()
            assert loop.train(run) == run.folder / "epoch_2.pth"
        return run

    return of


class TestResolve:
    def test_backbone_and_arguments_are_put_in(self, configs):
        resolved = OpenMMLabTask().resolve(
            configs["detection"], "meta_spikeformer_15m", {"in_channels": 1}, []
        )
        described = resolved["model"]["backbone"]
        assert described["name"] == "meta_spikeformer_15m"
        assert described["arguments"] == {"in_channels": 1}
        assert described["min_stride"] == 4

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            (
                "model = dict(backbone=dict(type='ResNet'))",
                "'ResNet'",
            ),
            ("model = dict(backbone='resnet')", "model.backbone is 'resnet'"),
            ("model = 3", "model.backbone is None"),
            ("other = 3", "model.backbone is None"),
        ],
    )
    def test_another_backbone_is_refused(self, tmp_path: Path, text: str, found: str):
        path = tmp_path / "mine.py"
        path.write_text(text)
        with pytest.raises(ConfigError, match=found):
            OpenMMLabTask().resolve(path, "meta_spikeformer_nano", {}, [])


@pytest.mark.parametrize("task", TASKS)
class TestTrain:
    def test_the_checkpoint_loads_as_weights(self, trained, task: str):
        run = trained(task)
        content = torch.load(run.folder / "epoch_2.pth", weights_only=True)
        assert (content["meta"]["epoch"], content["meta"]["iter"]) == (2, 2 * LIMIT // 4)
        assert any(name.startswith("backbone.model.") for name in content["state_dict"])

    def test_it_goes_on_from_the_last_checkpoint(
        self, trained, new_run, task: str, caplog: pytest.LogCaptureFixture
    ):
        """The first half of another run; then both halves took as many steps as one whole."""
        run = new_run(task)
        shutil.copy(trained(task).folder / "epoch_1.pth", run.folder)
        caplog.set_level("INFO", logger="spikebench")
        assert loop.train(run) == run.folder / "epoch_2.pth"
        content = torch.load(run.folder / "epoch_2.pth", weights_only=True)
        assert content["meta"]["iter"] == 2 * LIMIT // 4
        steps = [state["step"] for state in content["optimizer"]["state"].values()]
        assert {float(step) for step in steps} == {2 * LIMIT / 4}
        assert f"{run.title} 4/4 epoch=2/2 loss=" in caplog.text

    def test_what_is_trained_is_not_trained_again(self, trained, new_run, task: str):
        run = new_run(task)
        shutil.copy(trained(task).folder / "epoch_2.pth", run.folder)
        before = (run.folder / "epoch_2.pth").read_bytes()
        assert loop.train(run) == run.folder / "epoch_2.pth"
        assert (run.folder / "epoch_2.pth").read_bytes() == before

    def test_a_loss_that_is_no_number_is_one_line_with_step_rate_and_checkpoint(
        self, new_run, task: str, monkeypatch: pytest.MonkeyPatch
    ):
        original, taken = BaseModel.parse_losses, []

        def parse_losses(self, losses):
            taken.append(losses)
            loss, shown = original(self, losses)
            shown["loss"] = loss = loss * (torch.nan if len(taken) > 2 else 1)
            return loss, shown

        monkeypatch.setattr(BaseModel, "parse_losses", parse_losses)
        run = new_run(task, epochs=3)
        last = re.escape(str(run.folder / "epoch_1.pth"))
        with pytest.raises(UserError, match=f"step 3 .*nan.*{last}") as caught:
            loop.train(run)
        assert "\n" not in str(caught.value)
        assert not (run.folder / "epoch_2.pth").exists()

    def test_a_truncated_checkpoint_is_named_in_one_line(self, trained, new_run, task: str):
        run = new_run(task)
        path = run.folder / "epoch_1.pth"
        path.write_bytes((trained(task).folder / "epoch_1.pth").read_bytes()[:-1000])
        for use in (lambda: loop.train(run), lambda: loop.evaluate(run, path)):
            with pytest.raises(WeightsError) as caught:
                use()
            assert str(caught.value).startswith(str(path))
            assert "\n" not in str(caught.value)

    def test_it_says_nothing_on_the_screen(
        self, trained, new_run, task: str, capfd: pytest.CaptureFixture[str]
    ):
        run = new_run(task)
        shutil.copy(trained(task).folder / "epoch_2.pth", run.folder)
        capfd.readouterr()
        loop.evaluate(run, run.folder / "epoch_2.pth")
        assert capfd.readouterr().out == ""
        assert (run.folder / "mmengine.log").stat().st_size > 0

    def test_training_is_in_tensorboard(self, trained, task: str):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        run = trained(task)
        (events,) = [path.parent for path in run.tensorboard.rglob("events.out.*")]
        board = EventAccumulator(str(events))
        board.Reload()
        assert {"loss", "lr"} <= {tag.split("/")[-1] for tag in board.Tags()["scalars"]}

    def test_no_scope_is_left_behind(self, trained, task: str):
        run = trained(task)
        with DefaultScope.overwrite_default_scope("mmengine"):
            loop.probe(run, run.folder / "epoch_2.pth")
            scope = DefaultScope.get_current_instance()
            assert scope is not None
            assert scope.scope_name == "mmengine"


class TestLoadFrom:
    """Weights of a whole model to start from, of which some fit."""

    def test_what_fits_is_taken_and_what_does_not_is_named(
        self, new_run, trained, caplog: pytest.LogCaptureFixture
    ):
        """Weights of T = 1 into T = 2, with another head."""
        caplog.set_level("INFO", logger="spikebench")
        source = trained("segmentation").folder / "epoch_2.pth"
        changes = ("model.backbone.time_steps=2", "model.auxiliary_head.channels=16")
        frozen = "optim_wrapper.optimizer.lr=0.0"
        run = new_run("segmentation", 1, 0, f"+load_from={source}", *changes, frozen)
        run.config["param_scheduler"] = []  # for its lowest rate is not 0
        before = torch.load(source, weights_only=True)["state_dict"]
        after = torch.load(loop.train(run), weights_only=True)["state_dict"]
        fits = [key for key in after if after[key].shape == before[key].shape]
        changed = {key for key in fits if not torch.equal(after[key], before[key])}
        assert all("running" in key or "tracked" in key for key in changed)
        assert 0 < len(fits) < len(after) == len(before)
        lines = [line for line in caplog.messages if line.startswith(f"load_from {source}: ")]
        assert len(lines) == 2
        assert lines[0].endswith(f": {len(fits)} of the model's {len(after)} tensors loaded")
        start = f": {len(after) - len(fits)} of another shape: auxiliary_head."
        assert start in lines[1]
        assert "auxiliary_head.conv_seg.weight (11, 64, 1, 1) for (11, 16, 1, 1)" in lines[1]

    def test_who_goes_on_does_not_start_from_it_again(self, new_run, tmp_path: Path, trained):
        run = new_run("segmentation", 2, 0, f"+load_from={tmp_path / 'gone.pth'}")
        shutil.copy(trained("segmentation").folder / "epoch_1.pth", run.folder)
        assert loop.train(run) == run.folder / "epoch_2.pth"

    def test_what_is_scored_is_what_was_trained(self, new_run, trained):
        source = trained("segmentation").folder
        run = new_run("segmentation", 1, 0, f"+load_from={source / 'epoch_1.pth'}")
        scored = loop.evaluate(run, source / "epoch_2.pth").metrics
        assert scored == loop.evaluate(trained("segmentation"), source / "epoch_2.pth").metrics
        of_the_start = loop.evaluate(trained("segmentation"), source / "epoch_1.pth").metrics
        assert scored != of_the_start

    def test_a_file_that_is_more_than_weights_is_not_run(self, new_run, tmp_path: Path):
        path = tmp_path / "evil.pth"
        torch.save({"state_dict": {"a": Touch(tmp_path / "ran")}}, path)
        with pytest.raises(WeightsError, match=str(path)):
            loop.train(new_run("segmentation", 1, 0, f"+load_from={path}"))
        assert not (tmp_path / "ran").exists()

    def test_weights_of_nothing_in_it_are_an_error(self, new_run, tmp_path: Path):
        path = tmp_path / "other.pth"
        torch.save({"head.weight": torch.ones(2)}, path)
        with pytest.raises(WeightsError) as caught:
            loop.train(new_run("segmentation", 1, 0, f"+load_from={path}"))
        assert str(caught.value).startswith(f"load_from {path}")
        assert "1 unexpected: head.weight" in str(caught.value)
        assert "\n" not in str(caught.value)


class Touch:
    """Runs code where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("task", TASKS)
class TestEvaluate:
    def test_classes_and_intervals_come_with_the_figures(self, trained, task: str):
        run = trained(task)
        evaluation = loop.evaluate(run, run.folder / "epoch_2.pth")
        found = evaluation.per_class["box_map" if task == "detection" else "miou"]
        assert found.keys() <= {"background", *"0123456789"}
        assert len(found) > 2
        assert evaluation.intervals.keys() <= evaluation.metrics.keys()
        assert evaluation.intervals

    def test_it_is_of_as_many_images_as_it_says(self, trained, task: str):
        run = trained(task)
        metrics, dataset, *_ = loop.evaluate(run, run.folder / "epoch_2.pth")
        assert dataset.model_dump() == {
            "name": "digit_scenes",
            "split": "test",
            "train_samples": LIMIT,
            "test_samples": LIMIT,
        }
        assert all(0 <= value <= 1 for value in metrics.values())
        assert metrics


def test_without_a_limit_it_is_of_the_whole_split(new_run):
    run = new_run("segmentation")
    for limit in (LIMIT, None):
        config = loop._config(dataclasses.replace(run, limit=limit))
        for loader in (config.train_dataloader, config.test_dataloader):
            assert loader.dataset.get("indices") == limit
    assert "indices" not in run.config["test_dataloader"]["dataset"]


def test_the_figures_are_those_of_the_predictions(trained, scenes: Path, tmp_path: Path):
    """Mean IoU of predictions of many classes, counted by hand against the label maps on disk."""
    run = trained("segmentation")
    model, batches, forward, *_ = loop.probe(run, run.folder / "epoch_2.pth")
    torch.manual_seed(0)
    for norm in (m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.reset_running_stats()
        norm.momentum = None
    with torch.no_grad():
        model.decode_head.conv_seg.weight.normal_()
        model.train()
        for batch in batches:
            forward(model, batch)
        model.eval()
        samples = [one for batch in batches for one in forward(model, batch)]
    checkpoint = tmp_path / "other.pth"
    torch.save({"state_dict": model.state_dict()}, checkpoint)
    metrics, *_ = loop.evaluate(run, checkpoint)
    hits, real, said = (np.zeros(11) for _ in range(3))
    assert len(samples) == LIMIT
    for index, sample in enumerate(samples):
        found = sample.pred_sem_seg.data[0].numpy()
        truth = np.asarray(Image.open(scenes / "labels" / "test" / f"{index:04d}.png"))
        for label in range(11):
            hits[label] += ((found == label) & (truth == label)).sum()
            real[label] += (truth == label).sum()
            said[label] += (found == label).sum()
    assert (said > 0).sum() > 3
    seen = real + said > 0
    ious = hits[seen] / (real + said - hits)[seen]
    assert metrics["miou"] == pytest.approx(ious.mean(), abs=1e-9)
    assert metrics["aacc"] == pytest.approx(hits.sum() / real.sum(), abs=1e-9)


@pytest.mark.parametrize("task", TASKS)
def test_the_probe_gives_the_trained_model_and_test_images(trained, task: str):
    run = trained(task)
    checkpoint = run.folder / "epoch_2.pth"
    probe = loop.probe(run, checkpoint)
    saved = torch.load(checkpoint, weights_only=True)["state_dict"]
    own = probe.model.state_dict()
    assert all(torch.equal(own[name], value) for name, value in saved.items())
    info = probe.backbone
    assert (info.name, info.time_steps, info.arguments) == ("meta_spikeformer_nano", 1, {})
    assert info.parameters == sum(p.numel() for p in probe.model.backbone.parameters())
    first = next(iter(probe.batches))
    report = profile_operations(
        probe.model, [first], forward=probe.forward, images=probe.images, time_steps=info.time_steps
    )
    assert report.images == LIMIT
    names = {row.name.split(".")[0] for row in report.rows}
    expected = {"rpn_head", "roi_head"} if task == "detection" else {"decode_head"}
    assert {"backbone", "neck", *expected} <= names


def test_a_stock_checkpoint_hook_becomes_ours(new_run):
    run = new_run("segmentation", 1)
    for hooks in ({}, {"checkpoint": {"type": "CheckpointHook", "interval": 3}}):
        run.config["default_hooks"] = hooks
        found = loop._config(run).default_hooks.checkpoint
        assert found.type == "PlainCheckpointHook"
        assert found.interval == (3 if hooks else 1)


def test_data_are_looked_for_below_the_data_root(new_run):
    run = dataclasses.replace(new_run("detection", 1), data_root=Path("/sets"))
    run.config["train_dataloader"]["dataset"]["data_root"] = "data/mine"
    assert loop._config(run).train_dataloader.dataset.data_root == "/sets/mine"
    assert run.config["train_dataloader"]["dataset"]["data_root"] == "data/mine"


def test_the_seed_decides_the_weights(new_run):
    weights = []
    for seed in (0, 0, 1):
        run = new_run("segmentation", 1, seed)
        with loop._runner(loop._config(run), run.data_root) as runner:
            weights.append(runner.model.decode_head.conv_seg.weight.detach().clone())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])

from __future__ import annotations

import pickle
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from safetensors.torch import save_file

from spikebench.weights.loading import WeightsError
from spikebench_tasks.checkpoints import latest_checkpoint
from spikebench_tasks.openmmlab import checkpoints
from spikebench_tasks.openmmlab.checkpoints import SafeRunner, WholeFileBackend

pytestmark = pytest.mark.filterwarnings("ignore")


class Line(BaseModel):
    """y = 2 x, learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, x, y, mode="tensor"):
        error = (self.layer(x) - y).pow(2).mean()
        return {"loss": error} if mode == "loss" else [self.layer(x)]


class Interrupt(Hook):
    """Ctrl-C in one epoch."""

    def __init__(self, epoch: int | None) -> None:
        self.epoch = epoch

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if runner.epoch == self.epoch:
            raise KeyboardInterrupt


def train(
    folder: Path,
    epochs: int,
    resume: bool = False,
    name: str = "",
    interrupt_in: int | None = None,
    **hook,
) -> Runner:
    torch.manual_seed(0)
    data = [(torch.tensor([float(i)]), torch.tensor([2.0 * i])) for i in range(4)]
    runner = Runner(
        Line(),
        work_dir=str(folder),
        train_dataloader={
            "dataset": data,
            "batch_size": 2,
            "sampler": {"type": "DefaultSampler", "shuffle": False},
            "collate_fn": {"type": "default_collate"},
        },
        train_cfg={"by_epoch": True, "max_epochs": epochs},
        optim_wrapper={"optimizer": {"type": "AdamW", "lr": 0.1}},
        param_scheduler={"type": "ExponentialLR", "gamma": 0.9},
        default_hooks={
            "checkpoint": {"type": "PlainCheckpointHook", "interval": 1, **hook},
            "logger": {"type": "LoggerHook", "interval": 1},
        },
        resume=resume,
        experiment_name=f"{folder.name}-{name}-{epochs}",
        log_level="ERROR",
    )
    runner.register_hook(Interrupt(interrupt_in))
    runner.train()
    return runner


class TestPlainCheckpointHook:
    def test_its_checkpoints_load_as_weights(self, tmp_path: Path):
        runner = train(tmp_path, 1)
        content = torch.load(tmp_path / "epoch_1.pth", weights_only=True)
        assert content["meta"]["epoch"] == 1
        assert content["meta"]["iter"] == 2
        expected = runner.model.state_dict()
        assert content["state_dict"].keys() == expected.keys()
        assert all(torch.equal(content["state_dict"][key], expected[key]) for key in expected)
        assert "optimizer" in content
        assert "param_schedulers" in content

    def test_without_it_they_do_not(self, tmp_path: Path):
        """If this fails, the hook is no longer needed."""
        train(tmp_path, 1, name="stock", **{"type": "CheckpointHook"})
        with pytest.raises(pickle.UnpicklingError):
            torch.load(tmp_path / "epoch_1.pth", weights_only=True)

    def test_figures_of_numpy_become_plain(self, tmp_path: Path):
        hook = checkpoints.PlainCheckpointHook()
        content = {
            "message_hub": {
                "log_scalars": {"loss": object()},
                "runtime_info": {"a": np.float64(0.5), "b": np.int64(3), "c": "text", "d": None},
            }
        }
        hook.before_save_checkpoint(None, content)
        assert content["message_hub"] == {
            "log_scalars": {},
            "runtime_info": {"a": 0.5, "b": 3, "c": "text", "d": None},
        }
        assert type(content["message_hub"]["runtime_info"]["a"]) is float

    def test_resuming_goes_on_where_it_stopped(self, tmp_path: Path):
        straight = train(tmp_path / "straight", 3)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "parts", 3, interrupt_in=1)
        resumed = train(tmp_path / "parts", 3, resume=True, name="again")
        assert (resumed.epoch, resumed.iter) == (3, 6)
        for name, value in straight.model.state_dict().items():
            assert torch.equal(resumed.model.state_dict()[name], value)
        moments = [
            list(one.optim_wrapper.state_dict()["state"].values()) for one in (straight, resumed)
        ]
        assert torch.equal(moments[0][0]["exp_avg"], moments[1][0]["exp_avg"])
        rates = [one.optim_wrapper.get_lr()["lr"] for one in (straight, resumed)]
        assert rates[0] == rates[1]

    def test_the_last_two_stay_unless_said_otherwise(self, tmp_path: Path):
        train(tmp_path / "two", 4)
        assert sorted(path.name for path in (tmp_path / "two").glob("*.pth")) == [
            "epoch_3.pth",
            "epoch_4.pth",
        ]
        train(tmp_path / "one", 3, max_keep_ckpts=1)
        assert [path.name for path in (tmp_path / "one").glob("*.pth")] == ["epoch_3.pth"]

    def test_an_epoch_is_saved_unless_said_otherwise(self):
        assert checkpoints.PlainCheckpointHook().interval == 1
        assert checkpoints.PlainCheckpointHook(interval=4).interval == 4
        assert checkpoints.PlainCheckpointHook(by_epoch=False).interval == -1

    def test_it_writes_whole_files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        written = []
        put = WholeFileBackend.put

        def spy(self, obj, filepath):
            written.append(Path(filepath).name)
            put(self, obj, filepath)

        monkeypatch.setattr(WholeFileBackend, "put", spy)
        train(tmp_path, 1)
        assert written == ["epoch_1.pth"]


class TestSafeRunner:
    def runner(self, folder: Path, **options) -> SafeRunner:
        folder.mkdir(exist_ok=True)
        return SafeRunner(Line(), work_dir=str(folder), experiment_name=uuid.uuid4().hex, **options)

    def test_what_to_go_on_from_must_fit(self, tmp_path: Path):
        path = tmp_path / "epoch_1.pth"
        torch.save({"state_dict": {"layer.weight": torch.ones(2, 1), "more": torch.ones(1)}}, path)
        runner = self.runner(tmp_path / "run", resume=True)
        before = runner.model.layer.weight.clone()
        with pytest.raises(WeightsError) as caught:
            runner.load_checkpoint(str(path))
        assert str(caught.value) == (
            f"{path} is of another model: 1 missing: layer.bias; 1 unexpected: more; "
            "1 of another shape: layer.weight (2, 1) for (1, 1)"
        )
        assert torch.equal(runner.model.layer.weight, before)

    @pytest.mark.parametrize("prefix", ["", "module."])
    @pytest.mark.parametrize("wrapper", ["state_dict", None])
    def test_what_to_start_from_may_be_wrapped(
        self, tmp_path: Path, prefix: str, wrapper: str | None
    ):
        state = {f"{prefix}layer.weight": torch.full((1, 1), 7.0)}
        path = tmp_path / "weights.pth"
        torch.save(state if wrapper is None else {wrapper: state}, path)
        runner = self.runner(tmp_path / "run", load_from=str(path))
        runner.load_or_resume()
        assert runner.model.layer.weight.item() == 7

    def test_only_the_first_of_many_are_named(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ):
        state = {"layer.bias": torch.ones(1), **{f"k{i}": torch.ones(1) for i in range(9)}}
        path = tmp_path / "weights.safetensors"
        save_file(state, path)
        caplog.set_level("INFO", logger="spikebench")
        self.runner(tmp_path / "run").load_checkpoint(str(path))
        assert caplog.messages == [
            f"load_from {path}: 1 of the model's 2 tensors loaded",
            f"load_from {path}: 1 missing: layer.weight",
            f"load_from {path}: 9 unexpected: k0, k1, k2, k3, k4, ...",
        ]


class TestWholeFileBackend:
    def test_a_file_appears_under_its_name(self, tmp_path: Path):
        WholeFileBackend().put(b"abc", tmp_path / "deep" / "epoch_1.pth")
        assert [path.name for path in (tmp_path / "deep").iterdir()] == ["epoch_1.pth"]
        assert (tmp_path / "deep" / "epoch_1.pth").read_bytes() == b"abc"

    def test_one_that_is_cut_off_leaves_the_old_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        def cut_off(self, obj, filepath):
            Path(filepath).write_bytes(obj[:2])
            raise KeyboardInterrupt

        path = tmp_path / "epoch_1.pth"
        WholeFileBackend().put(b"old", path)
        monkeypatch.setattr(checkpoints.LocalBackend, "put", cut_off)
        with pytest.raises(KeyboardInterrupt):
            WholeFileBackend().put(b"new", path)
        with pytest.raises(KeyboardInterrupt):
            WholeFileBackend().put(b"new", tmp_path / "epoch_2.pth")
        assert path.read_bytes() == b"old"
        assert latest_checkpoint(tmp_path) == path

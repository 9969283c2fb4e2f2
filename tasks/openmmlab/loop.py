"""The run loop that detection and segmentation share: MMEngine's Runner, told what a run is."""

from __future__ import annotations

import contextlib
import copy
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings

from benchmark.backbones.weights import load_weights
from benchmark.progress import Progress
from benchmark.results import DatasetInfo
from benchmark.task import MissingDataError, Probe, Run
from tasks.checkpoints import latest_checkpoint, resumable_checkpoint
from tasks.openmmlab.sketch import backbone_info


def train(run: Run) -> Path:
    """Train from the last whole checkpoint in the run's folder to the end; the final checkpoint.

    Raises:
        MissingDataError: the data of training or of testing is not there.
        WeightsError: the checkpoint to resume from is truncated.
    """
    config = _config(run)
    config.val_dataloader = config.val_cfg = config.val_evaluator = None
    checkpoint = resumable_checkpoint(run.folder)
    if checkpoint is not None:
        config.load_from, config.resume = str(checkpoint), True
    with _runner(config) as runner, _ProgressHook(run.title) as hook:
        runner.register_hook(hook, priority="LOW")
        runner.train()
    final = latest_checkpoint(run.folder)
    if final is None:
        raise RuntimeError(
            f"training left no checkpoint in {run.folder}; default_hooks.checkpoint saves none"
        )
    return final


def test(run: Run, checkpoint: Path) -> tuple[dict[str, float], DatasetInfo]:
    """Score a checkpoint on the test split: metrics by name, and what they are of.

    The training split need not be there: weights may have been trained elsewhere.

    Raises:
        MissingDataError: the data of testing is not there.
    """
    with _testing(run, checkpoint) as runner, _ProgressHook(f"{run.title} test") as hook:
        runner.register_hook(hook, priority="LOW")
        metrics = runner.test()
        scored = runner.test_dataloader.dataset
        dataset = DatasetInfo(
            name=scored.metainfo.get("name", type(scored).__name__),
            split=getattr(scored, "split", "test"),
            train_samples=_train_samples(_config(run)),
            test_samples=len(scored),
        )
    return metrics, dataset


def probe(run: Run, checkpoint: Path) -> Probe:
    """The trained model and its test batches, run as in testing."""
    with _testing(run, checkpoint) as runner:
        backbone = backbone_info(runner.model, run.config)
        return Probe(runner.model, runner.test_dataloader, type(runner.model).test_step, backbone)


def _config(run: Run) -> Config:
    """The run's configuration with what depends on the run and not on the protocol."""
    config = Config(run.config)
    import_modules_from_strings(**config.custom_imports)
    config.work_dir = str(run.folder)
    # MMEngine keeps one logger, scope and visualizer for each name in a process
    config.experiment_name = f"{run.key}-{uuid.uuid4().hex[:8]}"
    config.randomness = {"seed": run.seed}
    config.visualizer = {
        "type": "mmengine.Visualizer",
        "save_dir": str(run.folder),
        "vis_backends": [{"type": "TensorboardVisBackend", "save_dir": str(run.tensorboard)}],
    }
    for loader in (config.train_dataloader, config.test_dataloader):
        if run.limit is not None:
            loader.dataset.indices = run.limit
    return config


def _train_samples(config: Config) -> int | None:
    """Images to train on; None where the weights were trained elsewhere and none are here."""
    try:
        return len(DATASETS.build(config.train_dataloader.dataset))
    except MissingDataError:
        return None


@contextlib.contextmanager
def _runner(config: Config) -> Iterator[Runner]:
    """A Runner that says what it has to say in `mmengine.log`, not on the screen."""
    log = Path(config.work_dir) / "mmengine.log"
    with (
        log.open("a", encoding="utf-8") as stream,
        contextlib.redirect_stdout(stream),  # what MMEngine, MMDetection and pycocotools print
        DefaultScope.overwrite_default_scope(config.default_scope),
    ):
        _look_at_data(config)
        runner = Runner.from_cfg(config)
        try:
            yield runner
        finally:
            runner.visualizer.close()


def _look_at_data(config: Config) -> None:
    """Find out what is missing before the model is built."""
    for split in ("train", "test"):
        loader = config.get(f"{split}_dataloader")
        if loader is None:
            continue
        described = copy.deepcopy(loader.dataset)
        kind = DATASETS.get(described.type)
        if isinstance(kind, type) and issubclass(kind, BaseDataset):
            # to read all annotations of a training split takes long, and the runner does it again
            described.lazy_init = split == "train"
            DATASETS.build(described)


@contextlib.contextmanager
def _testing(run: Run, checkpoint: Path) -> Iterator[Runner]:
    config = _config(run)
    for part in ("train", "val"):
        for kind in ("dataloader", "cfg", "evaluator"):
            config.pop(f"{part}_{kind}", None)
    config.pop("optim_wrapper")
    config.pop("param_scheduler", None)
    with _runner(config) as runner:
        load_weights(runner.model, checkpoint)
        yield runner


class _ProgressHook(Hook):
    """Shows how far training or testing is."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._progress: Progress | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> _ProgressHook:
        return self

    def __exit__(self, *failure: Any) -> None:
        self._stack.close()

    def _start(self, total: int) -> Progress:
        self._progress = self._stack.enter_context(Progress(self._title, total))
        return self._progress

    def before_train(self, runner: Runner) -> None:
        self._start(runner.max_iters).start_at(runner.iter)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        assert self._progress is not None
        self._progress.update(runner.iter + 1, loss=float(outputs["loss"]))

    def before_test(self, runner: Runner) -> None:
        self._start(len(runner.test_dataloader))

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        assert self._progress is not None
        self._progress.update(batch_idx + 1)

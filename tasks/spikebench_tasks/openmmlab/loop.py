"""Training, scoring and probing of detection and segmentation with MMEngine's Runner."""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import all_reduce, is_distributed
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import EpochBasedTrainLoop, Runner

from spikebench import distributed
from spikebench.progress import Progress
from spikebench.results import DatasetInfo
from spikebench.task import Evaluation, MissingDataError, Probe, Run
from spikebench.weights.loading import load_weights
from spikebench_tasks.checkpoints import latest_checkpoint
from spikebench_tasks.divergence import require_finite
from spikebench_tasks.openmmlab.checkpoints import SafeRunner, bare
from spikebench_tasks.openmmlab.checks.data import require_sound_data
from spikebench_tasks.openmmlab.data import (
    count_views,
    dataset_info,
    import_custom,
    leaves,
    located,
    require_files,
)
from spikebench_tasks.openmmlab.pictures import PicturesHook
from spikebench_tasks.openmmlab.precision import fit_precision
from spikebench_tasks.openmmlab.resuming import ResumeIterationsHook, find_resumption, resume
from spikebench_tasks.openmmlab.sketch import backbone_info, images_of

log = logging.getLogger("spikebench")


def train(run: Run) -> Path:
    """Train from the last whole checkpoint in the run's folder and return the final one.

    With several processes (`spikebench.distributed`), the batch size is per process, and the loss
    shown and logged is the mean over processes.

    Raises:
        MissingDataError: training or test data are missing.
        DatasetError: something is wrong with them.
        WeightsError: the checkpoint to resume from is truncated, or `load_from` cannot be read or
            has nothing that fits.
        UserError: the checkpoint to resume from was made by another number of processes, or the
            loss became NaN or infinite; earlier checkpoints stay.
    """
    processes = distributed.current()
    config = _config(run)
    config.val_dataloader = config.val_cfg = config.val_evaluator = None
    if run.config.get("sync_bn") != config.get("sync_bn"):
        log.warning("sync_bn=%r needs CUDA; each process has its own", run.config["sync_bn"])
    found = processes.from_main(lambda: find_resumption(run.folder, processes.count))
    config.train_dataloader.setdefault(
        "worker_init_fn",
        {
            "type": "seed_worker",
            "rank": processes.rank,
            "iteration": 0 if found is None else found.iteration,
        },
    )
    if found is not None:
        resume(config, found, run.seed, processes.rank)
    with _runner(config, run.data_root) as runner, _ProgressHook(run.title) as progress:
        runner.register_hook(_MeanLossHook(), priority="HIGHEST")
        runner.register_hook(_StopAtNaN(run.folder), priority="VERY_HIGH")
        runner.register_hook(ResumeIterationsHook())
        runner.register_hook(progress, priority="LOW")
        runner.train()
    final = processes.from_main(lambda: latest_checkpoint(run.folder))
    if final is None:
        raise RuntimeError(
            f"training left no checkpoint in {run.folder}; default_hooks.checkpoint saves none"
        )
    return final


def evaluate(run: Run, checkpoint: Path) -> Evaluation:
    """Score a checkpoint on the test split.

    The training split need not be there: weights may have been trained elsewhere. With several
    processes, each scores its share of the images, and the main one returns the whole.

    Raises:
        MissingDataError: test data are missing.
        DatasetError: something is wrong with them.
        WeightsError: the checkpoint is missing, truncated, or of another model.
    """
    with _testing(run, checkpoint) as runner, _ProgressHook(f"{run.title} test") as progress:
        runner.register_hook(_CollectionHook(run.folder / ".collected"))
        runner.register_hook(progress, priority="LOW")
        if not any(isinstance(hook, PicturesHook) for hook in runner.hooks):
            runner.register_hook(PicturesHook(required=False), priority="LOW")
        metrics = runner.test()
        scored = runner.test_dataloader.dataset
        name, split = dataset_info(scored)
        dataset = DatasetInfo(
            name=name,
            split=split,
            train_samples=_train_samples(_config(run), run.data_root),
            test_samples=len(scored),
        )
        intervals: dict[str, tuple[float, float]] = {}
        per_class: dict[str, dict[str, float]] = {}
        for metric in runner.test_evaluator.metrics:
            intervals |= getattr(metric, "intervals", {})
            per_class |= getattr(metric, "per_class", {})
    return Evaluation(dict(metrics), dataset, intervals, per_class)


def probe(run: Run, checkpoint: Path) -> Probe:
    """The trained model and its test batches; the forward pass is that of testing."""
    with _testing(run, checkpoint) as runner:
        model: Any = bare(runner.model)
        batches, views = runner.test_dataloader, 1
        if run.config.get("tta"):
            batches, views = _Views(batches), count_views(run.config["tta_pipeline"])
        info = backbone_info(model, run.config)
        return Probe(model, batches, type(model).test_step, info, views, images_of)


def _config(run: Run) -> Config:
    """The run's configuration, with what depends on the run and not on the protocol filled in."""
    import_custom(run.config)
    config = Config(located(run.config, run.data_root))
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
            for _, dataset in leaves(loader.dataset):
                dataset["indices"] = run.limit
    hooks = config.get("default_hooks") or {}
    saves = hooks.get("checkpoint") or {"type": "CheckpointHook", "interval": 1}
    if saves["type"] == "CheckpointHook":  # stock files have it; ours reads no other's checkpoints
        config.default_hooks = {**hooks, "checkpoint": {**saves, "type": "PlainCheckpointHook"}}
    if config.get("optim_wrapper"):
        fit_precision(config)
    if is_distributed():
        _distribute(config)
    return config


def _distribute(config: Config) -> None:
    """Configure data-parallel training and testing in the processes of a group."""
    config.launcher = "pytorch"
    if torch.cuda.is_available():
        return
    wrapper = {
        "type": "MMDistributedDataParallel",
        "broadcast_buffers": False,
        "find_unused_parameters": config.get("find_unused_parameters", False),
        **(config.get("model_wrapper_cfg") or {}),
    }
    config.model_wrapper_cfg = {**wrapper, "device_ids": None}  # MMEngine would take a CUDA device
    config.sync_bn = None


def _train_samples(config: Config, data_root: Path) -> int | None:
    """The number of training images; None if the training split is not here."""
    try:
        for key, described in leaves(config.train_dataloader.dataset):
            require_files(described, key, data_root)
    except MissingDataError:
        return None
    return len(DATASETS.build(config.train_dataloader.dataset))


@contextlib.contextmanager
def _runner(config: Config, data_root: Path, augmented: Config | None = None) -> Iterator[Runner]:
    """A Runner whose output goes to `mmengine.log`, not to the screen.

    Data are checked as `config`, not `augmented`, describes them: users know its keys.
    """
    processes = distributed.current()
    file = Path(config.work_dir) / "mmengine.log" if processes.is_main else Path(os.devnull)
    with (
        file.open("a", encoding="utf-8") as stream,
        contextlib.redirect_stdout(stream),  # what MMEngine, MMDetection and pycocotools print
        DefaultScope.overwrite_default_scope(config.default_scope),
    ):
        with processes.main_first():  # some data are made on first use
            require_sound_data(config.to_dict(), data_root)
        runner = SafeRunner.from_cfg(augmented or config)
        try:
            yield runner
        finally:
            runner.visualizer.close()


@contextlib.contextmanager
def _testing(run: Run, checkpoint: Path) -> Iterator[Runner]:
    config = _config(run)
    for part in ("train", "val"):
        for kind in ("dataloader", "cfg", "evaluator"):
            config.pop(f"{part}_{kind}", None)
    config.pop("optim_wrapper")
    config.pop("param_scheduler", None)
    config.load_from = None  # MMEngine would load it over the checkpoint before it tests
    augmented = _augmented(config) if config.get("tta") else None
    with _runner(config, run.data_root, augmented) as runner:
        load_weights(bare(runner.model), checkpoint)
        yield runner


def _augmented(config: Config) -> Config:
    """The configuration that tests on several views of each image, as `tools/test.py --tta`."""
    augmented = copy.deepcopy(config)
    augmented.model = {**config.tta_model, "module": config.model}
    for _, dataset in leaves(augmented.test_dataloader.dataset):
        dataset["pipeline"] = config.tta_pipeline
    return augmented


class _Views:
    """Splits batches of augmented images into batches of one view each."""

    def __init__(self, batches: Iterable[Mapping[str, Any]]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self._batches:
            for inputs, samples in zip(batch["inputs"], batch["data_samples"], strict=True):
                yield {"inputs": list(inputs), "data_samples": list(samples)}


class _MeanLossHook(Hook):
    """Averages the loss that other hooks see over all processes, as the gradient is."""

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if runner.world_size > 1:
            outputs["loss"] = outputs["loss"].detach().clone()
            all_reduce(outputs["loss"], op="mean")


class _StopAtNaN(Hook):
    """Aborts on a NaN or infinite loss, before such weights are saved."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        require_finite(
            outputs["loss"],
            runner.iter + 1,
            next(iter(runner.optim_wrapper.get_lr().values()))[0],
            "lower optim_wrapper.optimizer.lr or set optim_wrapper.clip_grad.max_norm",
            self._folder,
        )


class _CollectionHook(Hook):
    """Makes metrics exchange results below the run's folder, not in the working directory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def before_test(self, runner: Runner) -> None:
        for metric in runner.test_evaluator.metrics:
            if metric.collect_device == "cpu":
                metric.collect_dir = str(self._folder)


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

    def _start(self, total: int) -> None:
        if distributed.current().is_main:
            self._progress = self._stack.enter_context(Progress(self._title, total))

    def before_train(self, runner: Runner) -> None:
        self._start(runner.max_iters)
        if self._progress is not None:
            self._progress.start_at(runner.iter)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if self._progress is None:
            return
        epoch = {}
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            epoch["epoch"] = f"{runner.epoch + 1}/{runner.max_epochs}"
        self._progress.update(runner.iter + 1, **epoch, loss=float(outputs["loss"].detach()))

    def before_test(self, runner: Runner) -> None:
        self._start(len(runner.test_dataloader))

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if self._progress is not None:
            self._progress.update(batch_idx + 1)

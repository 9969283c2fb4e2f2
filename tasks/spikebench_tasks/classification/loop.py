"""Training, scoring and probing of a classification run with Lightning's Trainer."""

from __future__ import annotations

import contextlib
import inspect
import logging
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from scipy.stats import binomtest
from torch.utils.data import DataLoader

from spikebench.backbones.classifier import Classifier
from spikebench.registry import unknown_name
from spikebench.results import BackboneInfo, DatasetInfo
from spikebench.seeding import seed_everything
from spikebench.task import ConfigError, Evaluation, Probe, Run
from spikebench.weights.loading import (
    WeightsError,
    head_arguments,
    in_our_layout,
    load_weights,
    read_weights,
)
from spikebench_tasks.checkpoints import latest_checkpoint, resumable_checkpoint
from spikebench_tasks.classification.callbacks import (
    PlainProgress,
    ProgressBar,
    SeedEpochs,
    StopAtNaN,
    WholeFiles,
)
from spikebench_tasks.classification.confusion import ConfusionMatrix
from spikebench_tasks.classification.datamodule import DataModule
from spikebench_tasks.classification.datasets import build_data_module
from spikebench_tasks.classification.devices import on_devices
from spikebench_tasks.classification.module import ClassificationModule
from spikebench_tasks.classification.options import accepted_arguments, require_known
from spikebench_tasks.classification.task import ClassificationTask
from spikebench_tasks.datasets import DatasetError

logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)

_OURS = (
    "barebones",
    "callbacks",
    "default_root_dir",
    "enable_checkpointing",
    "enable_progress_bar",
    "fast_dev_run",
    "limit_test_batches",
    "logger",
    "plugins",
    "reload_dataloaders_every_n_epochs",
    "use_distributed_sampler",
)


def train(run: Run) -> Path:
    """Train from the last whole checkpoint in the run's folder to the end; the final checkpoint.

    `ema` of the configuration, arguments of Lightning's `EMAWeightAveraging`, has a moving average
    of the weights saved and scored. Weights to start from are those of `load_from`; a distillation
    head that they lack starts as a copy of the other.

    Raises:
        ConfigError: there is a distillation head and no teacher, or one of other classes; or
            `trainer` sets what a run sets itself.
        UnknownNameError: `trainer` has what Lightning's Trainer does not know.
        MissingDataError: the data of training or of testing is not there.
        WeightsError: the checkpoint to resume from is truncated, or weights do not fit.
        UserError: the loss is no longer a number; what was saved before stays.
    """
    described = run.config["model"]
    if described.get("distillation") and not described.get("teacher"):
        raise ConfigError(
            "model.distillation=True: a distillation head learns from a teacher, and there is no "
            "model.teacher; name one, or set it to False"
        )
    module, data = _build(run, training=True)
    checkpoint = resumable_checkpoint(run.folder)
    if checkpoint is None and run.config.get("load_from"):
        _start_from(module.model, run.config["load_from"])
    averaging = run.config.get("ema")
    if averaging is not None and run.config["trainer"].get("strategy") == "fsdp":
        raise ConfigError("ema and trainer.strategy=fsdp, which has no average; leave one out")
    trainer = _trainer(
        run,
        [
            SeedEpochs(run.seed),
            StopAtNaN(run.folder),
            *([] if averaging is None else [EMAWeightAveraging(**averaging)]),
        ],
    )
    with _errors_in_one_line():
        trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
    final = latest_checkpoint(run.folder)
    if final is None:
        raise RuntimeError(f"training left no checkpoint in {run.folder}: no epoch was finished")
    return final


def evaluate(run: Run, checkpoint: Path) -> Evaluation:
    """Score a checkpoint on the test split, in full precision and with T as configured.

    Accuracies come with 95 % intervals, by class and by number of time steps; `confusion.png` in
    the run's folder shows what is taken for what.

    The checkpoint may be of this task or of the published code, with a distillation head or
    without. The training split need not be there: weights may have been trained elsewhere.

    Raises:
        MissingDataError: the data of testing is not there.
        WeightsError: the checkpoint is missing, truncated, or of another model.
    """
    module, data = _build(run, checkpoint=checkpoint)
    confusion = ConfusionMatrix(run.folder / "confusion.png")
    trainer = _trainer(run, [confusion], precision="32-true", strategy="auto")
    with _errors_in_one_line():
        (tested,) = trainer.test(module, data, verbose=False)
    logged = dict(tested)
    dataset = DatasetInfo(
        name=data.title,
        split=data.test_split,
        train_samples=data.train_samples,
        test_samples=len(data.test),
    )
    count = dataset.test_samples
    if confusion.counts.sum() != count:
        raise ConfigError(
            f"{int(confusion.counts.sum())} images of {data.name} were scored; expected {count} "
            "(data.samples)"
        )
    by_time_steps = [_share(logged.pop(name), count) for name in module.metrics_by_time_steps]
    specs = ClassificationTask.metrics
    shares = {name: value for name, value in logged.items() if specs[name].proportion}
    of_class = confusion.counts.diagonal().double() / confusion.counts.sum(1)
    per_class = {
        name: value
        for name, value in zip(data.classes, of_class.tolist(), strict=True)
        if not math.isnan(value)
    }
    return Evaluation(
        {**logged, **{name: _share(value, count) for name, value in shares.items()}},
        dataset,
        {name: _wilson(round(value * count), count) for name, value in shares.items()},
        {"top1": per_class},
        {"top1": by_time_steps} if by_time_steps else {},
    )


def _share(logged: float, count: int) -> float:
    """The share that an accuracy is, which torchmetrics divides in single precision."""
    return round(logged * count) / count


@contextlib.contextmanager
def _errors_in_one_line() -> Iterator[None]:
    """Undo what Lightning makes of Ctrl-C, and loaders of what their workers raise."""
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
    except Exception as error:
        lines = str(error).splitlines()
        if lines and re.match(r"Caught \w*Error in DataLoader worker process", lines[0]):
            kind, _, message = lines[-1].partition(": ")
            if kind.endswith(("DatasetError", "EventFileError", "UserError")):
                raise DatasetError(message) from None
        raise


def _wilson(hits: int, count: int) -> tuple[float, float]:
    """The 95 % interval of an accuracy (Wilson, 1927)."""
    found = binomtest(hits, count).proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)


def probe(run: Run, checkpoint: Path) -> Probe:
    """The trained classifier and batches of test images."""
    module, data = _build(run, checkpoint=checkpoint)
    data.setup("test")
    return _as_probe(module, _Images(data.test_dataloader()), run.config)


def sketch(config: Mapping[str, Any]) -> Probe:
    """The untrained classifier, and an image of noise; see `Task.sketch`."""
    data = build_data_module(**config["data"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = _module(config["model"], data)
        image = data.example()
    return _as_probe(module, [image], config)


class _Images:
    """The images of a loader, without labels, whenever they are gone over."""

    def __init__(self, loader: DataLoader) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[Any]:
        return (images for images, _ in self._loader)


def _as_probe(
    module: ClassificationModule, batches: Iterable[Any], config: Mapping[str, Any]
) -> Probe:
    model = module.model.eval()
    backbone = BackboneInfo(
        name=config["model"]["backbone"],
        arguments=config["model"]["arguments"],
        time_steps=model.time_steps,
        parameters=sum(weight.numel() for weight in model.backbone.parameters()),
    )
    return Probe(model, batches, lambda model, batch: model(batch), backbone)


def _build(
    run: Run, training: bool = False, checkpoint: Path | None = None
) -> tuple[ClassificationModule, DataModule]:
    """Module and data of a run; with a checkpoint, as many heads as it has, and its weights."""
    seed_everything(run.seed)
    data = build_data_module(limit=run.limit, data_root=run.data_root, **run.config["data"])
    described = dict(run.config["model"])
    steps = described.get("time_steps", 1)
    if data.time_steps not in (None, steps):
        raise ConfigError(
            f"data.time_steps is {data.time_steps} and model.time_steps is {steps}; make them equal"
        )
    data.require(training)
    if checkpoint is not None:
        described["teacher"] = None
        described["distillation"] = head_arguments(checkpoint).get("distillation", False)
    module = _module(described, data)
    if checkpoint is not None:
        load_weights(module.model, checkpoint)
    return module, data


def _module(described: Mapping[str, Any], data: DataModule) -> ClassificationModule:
    require_known(described, accepted_arguments(ClassificationModule), "model")
    return ClassificationModule(num_classes=data.num_classes, **described)


def _start_from(model: Classifier, path: str) -> None:
    state = in_our_layout(read_weights(path))
    if model.distillation_head is not None and not head_arguments(state).get("distillation"):
        for key in [key for key in state if key.endswith(("head.weight", "head.bias"))]:
            prefix, kind = key.rsplit("head.", 1)
            state[f"{prefix}distillation_head.{kind}"] = state[key]
    try:
        load_weights(model, state)
    except WeightsError as error:
        raise WeightsError(f"load_from {path}: {error}") from error


def _trainer(run: Run, callbacks: Sequence[Callback], **options: Any) -> L.Trainer:
    loggers = [
        TensorBoardLogger(
            run.tensorboard.parent, name=run.tensorboard.name, version="", default_hp_metric=False
        ),
        CSVLogger(run.folder, name="csv"),  # one folder per part: it would delete the part before
    ]
    checkpoints = ModelCheckpoint(
        run.folder, filename="{epoch}", enable_version_counter=False, save_on_train_epoch_end=True
    )
    shows = ProgressBar() if sys.stderr.isatty() else PlainProgress(run.title)
    described = _trainer_options(run.config["trainer"], **options)
    return L.Trainer(
        logger=loggers,
        callbacks=[checkpoints, shows, *callbacks],
        enable_progress_bar=isinstance(shows, ProgressBar),
        reload_dataloaders_every_n_epochs=1,  # the first is made before a run knows its epoch
        plugins=[WholeFiles(), *described.pop("plugins", ())],
        **described,
    )


def _trainer_options(config: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """What a configuration says of the Trainer, over what holds where it says nothing."""
    known = inspect.signature(L.Trainer).parameters
    for name in config:
        if name not in known:
            raise unknown_name("argument of Lightning's Trainer: trainer", name, known)
        if name in _OURS:
            raise ConfigError(
                f"trainer.{name} is {config[name]!r}; a run sets it itself, so that it can be "
                "resumed and recorded; leave it out"
            )
    shown = {"enable_model_summary": False, "num_sanity_val_steps": 0, "log_every_n_steps": 10}
    return on_devices({**shown, **config, **options})

"""Training, scoring and probing of a classification run with Lightning's Trainer."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO

from benchmark.backbones.weights import load_weights
from benchmark.progress import Progress
from benchmark.results import BackboneInfo, DatasetInfo
from benchmark.task import Evaluation, Probe, Run
from tasks.checkpoints import latest_checkpoint, resumable_checkpoint
from tasks.classification.data import DigitsDataModule, build_data_module
from tasks.classification.module import ClassificationModule

logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


def train(run: Run) -> Path:
    """Train from the last whole checkpoint in the run's folder to the end; the final checkpoint.

    Raises:
        WeightsError: the checkpoint to resume from is truncated.
    """
    module, data = _build(run)
    checkpoint = resumable_checkpoint(run.folder)
    trainer = _trainer(run)
    try:
        trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit:  # what Lightning makes of Ctrl-C
        raise KeyboardInterrupt from None
    final = latest_checkpoint(run.folder)
    if final is None:
        raise RuntimeError(f"training left no checkpoint in {run.folder}: no epoch was finished")
    return final


def evaluate(run: Run, checkpoint: Path) -> Evaluation:
    """Score a checkpoint on the test split."""
    module, data = _build(run)
    load_weights(module.model, checkpoint)
    try:
        (metrics,) = _trainer(run).test(module, data, verbose=False)
    except SystemExit:
        raise KeyboardInterrupt from None
    dataset = DatasetInfo(
        name=data.name,
        split="test",
        train_samples=len(data.train),
        test_samples=len(data.test),
    )
    return Evaluation(dict(metrics), dataset)


def probe(run: Run, checkpoint: Path) -> Probe:
    """The trained classifier and batches of test images."""
    module, data = _build(run)
    model = load_weights(module.model, checkpoint)
    data.setup("test")
    backbone = BackboneInfo(
        name=run.backbone,
        arguments=run.config["model"]["arguments"],
        time_steps=module.model.time_steps,
        parameters=sum(weight.numel() for weight in module.model.backbone.parameters()),
    )
    images = (images for images, _ in data.test_dataloader())
    return Probe(model, images, lambda model, batch: model(batch), backbone)


def _build(run: Run) -> tuple[ClassificationModule, DigitsDataModule]:
    L.seed_everything(run.seed, workers=True, verbose=False)
    data = build_data_module(limit=run.limit, **run.config["data"])
    return ClassificationModule(num_classes=data.num_classes, **run.config["model"]), data


def _trainer(run: Run) -> L.Trainer:
    loggers = [
        TensorBoardLogger(run.tensorboard.parent, name=run.tensorboard.name, version=""),
        CSVLogger(run.folder, name="csv"),  # a folder a part: it would delete the part before
    ]
    checkpoints = ModelCheckpoint(
        run.folder, filename="{epoch}", enable_version_counter=False, save_on_train_epoch_end=True
    )
    shows = RichProgressBar() if sys.stderr.isatty() else _PlainProgress(run.title)
    return L.Trainer(
        plugins=[_WholeFiles()],
        logger=loggers,
        callbacks=[checkpoints, shows],
        enable_progress_bar=isinstance(shows, RichProgressBar),
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        **run.config["trainer"],
    )


class _WholeFiles(TorchCheckpointIO):
    """Checkpoints that appear under their name only when they are whole.

    Lightning writes to the temporary folder of the system and moves the file, which is a copy where
    that folder lies on another disk.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        path = Path(path)
        temporary = path.with_name(f".{path.name}.part")
        super().save_checkpoint(checkpoint, temporary, storage_options)
        temporary.replace(path)


class _PlainProgress(Callback):
    """Plain lines where the output is no terminal."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._progress: Progress | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._progress = Progress(self._title, int(trainer.estimated_stepping_batches))
        self._progress.start_at(trainer.global_step)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *batch: Any
    ) -> None:
        assert self._progress is not None
        self._progress.update(trainer.global_step, loss=float(outputs["loss"]))

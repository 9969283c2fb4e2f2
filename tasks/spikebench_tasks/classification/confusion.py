"""The confusion matrix of a test: counted by a callback, and drawn.

torchmetrics draws one too, in a style that runs LaTeX wherever LaTeX is installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import lightning as L
import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from spikebench.files import replacing
from spikebench_tasks.classification.module import ClassificationModule

_READABLE = 30  # classes whose names and counts are written into a picture


class ConfusionMatrix(L.Callback):
    """Counts in any Trainer's test what each class is predicted as, over all processes.

    Without a data module that names the classes, the picture numbers them.

    Args:
        path: where the picture goes; None draws it for TensorBoard alone.

    Attributes:
        counts: `(num_classes, num_classes)`, rows the truth, columns what was predicted; known
            after the test.

    Example:
        >>> from spikebench_tasks.classification.datasets.digits import DigitsDataModule
        >>> confusion = ConfusionMatrix()
        >>> trainer = L.Trainer(callbacks=[confusion], logger=False, enable_progress_bar=False)
        >>> module = ClassificationModule("meta_spikeformer_nano", num_classes=10)
        >>> _ = trainer.test(module, DigitsDataModule(limit=20), verbose=False)
        >>> int(confusion.counts.sum())
        20
    """

    counts: Tensor

    def __init__(self, path: Path | None = None) -> None:
        self._path = path

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        classes = cast(ClassificationModule, pl_module).num_classes
        self._metric = MulticlassConfusionMatrix(classes).to(pl_module.device)

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *batch: Any
    ) -> None:
        self._metric.update(outputs["logits"], outputs["labels"])

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.counts = self._metric.compute().cpu()
        boards = [one for one in trainer.loggers if isinstance(one, TensorBoardLogger)]
        if not trainer.is_global_zero or not (self._path or boards):
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        classes = getattr(data, "classes", None) or [str(one) for one in range(len(self.counts))]
        figure = confusion_figure(self.counts.numpy(), classes)
        if self._path is not None:
            with replacing(self._path) as temporary:
                figure.savefig(temporary, format="png", dpi=100)
        for board in boards:
            board.experiment.add_figure("confusion", figure, close=False)


def confusion_figure(counts: np.ndarray, classes: Sequence[str]) -> Figure:
    """Draw what was predicted of the images of each class.

    Args:
        counts: `(num_classes, num_classes)`, rows the truth, columns what was predicted.
        classes: their names; of many classes neither these nor counts are written.

    Returns:
        A figure whose colours are shares of a class's images.
    """
    few = len(classes) <= _READABLE
    side = max(6.0, 0.45 * len(classes)) if few else 10.0
    figure = Figure(figsize=(side, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if few:
        names = [name.replace("$", r"\$") for name in classes]
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
        for (true, predicted), count in np.ndenumerate(counts):
            colour = "white" if shares[true, predicted] > 0.5 else "black"
            axes.text(
                predicted, true, str(count), ha="center", va="center", fontsize=8, color=colour
            )
    return figure

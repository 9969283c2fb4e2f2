"""The LightningModule of image classification."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning as L
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from benchmark.backbones import build_classifier


class ClassificationModule(L.LightningModule):
    """A spiking classifier, its loss, its metrics and its optimiser.

    Args:
        backbone: registered name.
        num_classes: how many classes.
        time_steps: T.
        arguments: further arguments of the backbone.
        optimizer: arguments of timm's `create_optimizer_v2`: opt, lr, weight_decay, ...; 1-D
            parameters are not decayed.
        warmup: share of all steps in which the learning rate rises linearly; then it falls to zero
            along a cosine.
        label_smoothing: of the cross entropy.
        distillation: whether there is a second head that learnt from a teacher; it is scored, in
            the mean of both heads, and not trained.

    Example:
        >>> import torch
        >>> module = ClassificationModule("meta_spikeformer_nano", num_classes=10)
        >>> module(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        backbone: str,
        num_classes: int,
        time_steps: int = 1,
        arguments: Mapping[str, Any] | None = None,
        optimizer: Mapping[str, Any] | None = None,
        warmup: float = 0.1,
        label_smoothing: float = 0.0,
        distillation: bool = False,
    ) -> None:
        super().__init__()
        self.model = build_classifier(
            backbone, num_classes, time_steps, distillation, **(arguments or {})
        )
        self.loss = nn.CrossEntropyLoss(label_smoothing=label_smoothing)
        self.optimizer = dict(optimizer or {"opt": "adamw", "lr": 1e-3, "weight_decay": 0.05})
        self.warmup = warmup
        accuracies = {
            f"top{k}": MulticlassAccuracy(num_classes, top_k=k, average="micro")
            for k in (1, 5)
            if k <= num_classes
        }
        self.test_metrics = MetricCollection(dict(accuracies))
        self.val_metrics = self.test_metrics.clone(prefix="val/")

    def forward(self, x: Tensor) -> Tensor:
        """Images `(B, C, H, W)` or event frames `(B, T, C, H, W)` to logits `(B, num_classes)`."""
        return self.model(x)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        loss = self.loss(self(images), labels)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        self.val_metrics.update(self(images), labels)
        self.log_dict(self.val_metrics, prog_bar=True)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        self.test_metrics.update(self(images), labels)
        self.log_dict(self.test_metrics)

    def configure_optimizers(self) -> Any:
        optimizer = create_optimizer_v2(self.model, **self.optimizer)
        steps = int(self.trainer.estimated_stepping_batches)
        rising = max(1, round(self.warmup * steps))
        schedule = SequentialLR(
            optimizer,
            [
                LinearLR(optimizer, start_factor=0.01, total_iters=rising),
                CosineAnnealingLR(optimizer, T_max=max(1, steps - rising)),
            ],
            milestones=[rising],
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

"""The LightningModule of image classification."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import lightning as L
import torch
from timm.data import Mixup
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
)

from spikebench.backbones import build_classifier
from spikebench.task import ConfigError
from spikebench_tasks.classification.mixing import EventMix
from spikebench_tasks.classification.teacher import build_teacher


class ClassificationModule(L.LightningModule):
    """A spiking classifier, its loss, its metrics and its optimiser.

    Args:
        backbone: registered name.
        num_classes: how many classes.
        time_steps: T.
        arguments: further arguments of the backbone.
        optimizer: arguments of timm's `create_optimizer_v2`: opt, lr, weight_decay, layer_decay,
            ...; 1-D parameters are not decayed.
        warmup: share of all steps in which the learning rate rises linearly; then it falls along a
            cosine.
        min_lr: what it falls to.
        label_smoothing: of the cross entropy.
        distillation: whether there is a second head, which learns from a teacher; scored is the
            mean of both heads.
        teacher: what the second head learns from, as `build_teacher` takes it: hard distillation
            (Touvron et al., ICML 2021, arXiv 2012.12877), in which the class that the teacher gives
            is its label.
        distillation_alpha: weight of the second head in the loss.
        mixup: arguments of timm's `Mixup`: mixup_alpha, cutmix_alpha, prob, ...; of event frames
            mixup alone.
        eventmix: arguments of `EventMix`, for event frames: alpha, prob, components.
        channels_last: whether images and weights have their channels innermost in memory.
        compiled: whether torch.compile is asked for the model.

    Attributes:
        confusion: what was predicted of each class in testing, `(num_classes, num_classes)`.

    Example:
        >>> import torch
        >>> module = ClassificationModule("meta_spikeformer_nano", num_classes=10)
        >>> module(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])

        With a data module, in any Trainer:

        >>> import lightning as L
        >>> from spikebench_tasks.classification.datasets.digits import DigitsDataModule
        >>> trainer = L.Trainer(max_epochs=1, logger=False, enable_checkpointing=False,
        ...                     enable_progress_bar=False, enable_model_summary=False)
        >>> trainer.fit(module, DigitsDataModule(limit=64))
        >>> sorted(trainer.test(module, DigitsDataModule(limit=64), verbose=False)[0])
        ['ece', 'top1', 'top5']
    """

    def __init__(
        self,
        backbone: str,
        num_classes: int,
        time_steps: int = 1,
        arguments: Mapping[str, Any] | None = None,
        optimizer: Mapping[str, Any] | None = None,
        warmup: float = 0.1,
        min_lr: float = 0.0,
        label_smoothing: float = 0.0,
        distillation: bool = False,
        teacher: Mapping[str, Any] | None = None,
        distillation_alpha: float = 0.5,
        mixup: Mapping[str, Any] | None = None,
        eventmix: Mapping[str, Any] | None = None,
        channels_last: bool = False,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        if teacher is not None and not distillation:
            raise ConfigError("model.teacher without model.distillation=True; set it")
        self.model = build_classifier(
            backbone, num_classes, time_steps, distillation, **(arguments or {})
        )
        self.memory_format = torch.channels_last if channels_last else torch.preserve_format
        self.model.to(memory_format=self.memory_format)
        if compiled:
            self.model.compile()
        # not a submodule: checkpoints and optimiser are the student's
        self._teacher = [] if teacher is None else [build_teacher(teacher, num_classes)]
        self.distillation_alpha = distillation_alpha
        if mixup and eventmix:
            raise ConfigError("model.mixup and model.eventmix; expected one of them")
        labels = {"num_classes": num_classes, "label_smoothing": label_smoothing}
        self.mixup: Mixup | EventMix | None = None
        if mixup:
            self.mixup = Mixup(**{**labels, **mixup})
        elif eventmix:
            self.mixup = EventMix(**{**labels, **eventmix})
        # what mixes has smoothed labels already
        self.loss = nn.CrossEntropyLoss(label_smoothing=0.0 if self.mixup else label_smoothing)
        self.optimizer = dict(optimizer or {"opt": "adamw", "lr": 1e-3, "weight_decay": 0.05})
        self.warmup = warmup
        self.min_lr = min_lr
        accuracies = {
            f"top{k}": MulticlassAccuracy(num_classes, top_k=k, average="micro")
            for k in (1, 5)
            if k <= num_classes
        }
        self.val_metrics = MetricCollection(dict(accuracies)).clone(prefix="val/")
        calibration = MulticlassCalibrationError(num_classes, n_bins=15, norm="l1")
        self.test_metrics = MetricCollection({**accuracies, "ece": calibration})
        self.confusion = MulticlassConfusionMatrix(num_classes)
        self._by_time_steps = nn.ModuleList(
            MulticlassAccuracy(num_classes, average="micro") for _ in range(self.model.time_steps)
        )

    @property
    def top1_by_time_steps(self) -> list[MulticlassAccuracy]:
        """Accuracies in testing after 1, 2, ... T time steps."""
        return cast(list[MulticlassAccuracy], list(self._by_time_steps))

    def forward(self, x: Tensor) -> Tensor:
        """Images `(B, C, H, W)` or event frames `(B, T, C, H, W)` to logits `(B, num_classes)`."""
        return self.model(self._laid_out(x))

    def _laid_out(self, x: Tensor) -> Tensor:
        # frames are laid out anew where time is put first
        return x.contiguous(memory_format=self.memory_format) if x.dim() == 4 else x

    def configure_model(self) -> None:
        """Divide the parameters between processes, where the Trainer's strategy has it so."""
        if self.device_mesh is None or isinstance(self.model, FSDPModule):
            return
        if self.memory_format == torch.channels_last:
            raise ConfigError(
                "model.channels_last=True and trainer.strategy=fsdp, which divides no weights in "
                "that layout; leave one out"
            )
        fully_shard(self.model, mesh=self.device_mesh["data_parallel"])

    def on_fit_start(self) -> None:
        for teacher in self._teacher:
            teacher.to(self.device, cast(torch.dtype, self.dtype))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        if self.mixup is not None:
            self._require_mixable(images)
            if isinstance(self.mixup, Mixup) and len(images) % 2:  # it pairs images
                if len(images) == 1:
                    images, labels = torch.cat([images, images]), torch.cat([labels, labels])
                else:
                    images, labels = images[:-1], labels[:-1]
            images, labels = self.mixup(images, labels)
        loss = self._loss(images, labels)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def _require_mixable(self, images: Tensor) -> None:
        are_frames = images.dim() == 5
        if isinstance(self.mixup, EventMix) and not are_frames:
            raise ConfigError("model.eventmix and images; it is for event frames, use model.mixup")
        if isinstance(self.mixup, Mixup) and are_frames and self.mixup.cutmix_alpha > 0:
            raise ConfigError("model.mixup.cutmix_alpha and event frames; use model.eventmix")

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        if not self._teacher:
            return self.loss(self(images), labels)
        (teacher,) = self._teacher
        logits, distilled = self(images)
        try:
            with torch.no_grad():
                taught = teacher(images).argmax(1)
        except AssertionError as error:  # of timm's models whose images are of one size
            raise ConfigError(
                f"model.teacher does not take images of {tuple(images.shape[-2:])}: {error}; set "
                "data.image_size, or the teacher's arguments such as img_size"
            ) from error
        alpha = self.distillation_alpha
        return (1 - alpha) * self.loss(logits, labels) + alpha * cross_entropy(distilled, taught)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        self.val_metrics.update(self(images), labels)
        self.log_dict(self.val_metrics, prog_bar=True)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        over_time = self.model.over_time(self._laid_out(images))
        for accuracy, logits in zip(self.top1_by_time_steps, over_time, strict=True):
            accuracy.update(logits, labels)
        logits = over_time[-1]
        self.confusion.update(logits, labels)
        self.test_metrics.update(logits, labels)
        self.log_dict(self.test_metrics)

    def on_test_epoch_end(self) -> None:
        # their states are still on the device that processes gather on; what is computed stays
        self.confusion.compute()
        for accuracy in self.top1_by_time_steps:
            accuracy.compute()

    def configure_optimizers(self) -> Any:
        optimizer = create_optimizer_v2(self.model, **self.optimizer)
        for group in optimizer.param_groups:  # of layer_decay; only timm's schedules heed it
            group["lr"] *= group.get("lr_scale", 1.0)
        steps = int(self.trainer.estimated_stepping_batches)
        rising = max(1, round(self.warmup * steps))
        schedule = SequentialLR(
            optimizer,
            [
                LinearLR(optimizer, start_factor=0.01, total_iters=rising),
                CosineAnnealingLR(optimizer, max(1, steps - rising), self.min_lr),
            ],
            milestones=[rising],
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

"""The LightningModule of image classification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

import lightning as L
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

from spikebench.backbones import build_classifier
from spikebench.task import ConfigError
from spikebench_tasks.classification.mixing import EventMix
from spikebench_tasks.classification.optimizer import build_optimizer
from spikebench_tasks.classification.options import (
    EventMixConfig,
    MixupConfig,
    OptimizerConfig,
    TeacherConfig,
    plain,
    typed,
)
from spikebench_tasks.classification.teacher import build_teacher

if TYPE_CHECKING:
    from timm.data import Mixup


class ClassificationModule(L.LightningModule):
    """A spiking classifier with its loss, metrics and optimiser.

    Options given as dataclasses may be dictionaries of their fields, too.

    Args:
        backbone: registered name.
        num_classes: number of classes.
        time_steps: T.
        arguments: further arguments of the backbone, plain data.
        optimizer: the optimiser; None is AdamW.
        warmup: share of all steps in which the learning rate rises linearly; then it falls along a
            cosine.
        min_lr: what it falls to.
        label_smoothing: of the cross entropy.
        distillation: whether there is a second head, which learns from a teacher; the mean of both
            heads is scored.
        teacher: what the second head learns from: hard distillation (Touvron et al., ICML 2021,
            arXiv 2012.12877), in which the teacher's class is the label. It is built when training
            begins.
        distillation_alpha: weight of the second head in the loss.
        mixup: mixup and CutMix; of event frames mixup alone.
        eventmix: mixing of event frames.
        channels_last: whether images and weights have their channels innermost in memory.
        compiled: whether torch.compile compiles the model.

    Testing logs `top1`, `top5` and `ece`, and where T > 1 and neurons are causal
    `top1_t1`, ... `top1_tT`: the accuracy after 1, 2, ... T time steps of one pass.

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
        optimizer: OptimizerConfig | None = None,
        warmup: float = 0.1,
        min_lr: float = 0.0,
        label_smoothing: float = 0.0,
        distillation: bool = False,
        teacher: TeacherConfig | None = None,
        distillation_alpha: float = 0.5,
        mixup: MixupConfig | None = None,
        eventmix: EventMixConfig | None = None,
        channels_last: bool = False,
        compiled: bool = False,
    ) -> None:
        given = {
            name: plain(value)
            for name, value in locals().items()
            if name not in ("self", "__class__")
        }
        super().__init__()
        self.save_hyperparameters(given)
        if teacher is not None and not distillation:
            raise ConfigError("model.teacher without model.distillation=True; set it")
        self.model = build_classifier(
            backbone, num_classes, time_steps, distillation, **(arguments or {})
        )
        self.memory_format = torch.channels_last if channels_last else torch.preserve_format
        self.model.to(memory_format=self.memory_format)
        if compiled:
            self.model.compile()
        self.num_classes = num_classes
        self.teacher = None if teacher is None else typed(TeacherConfig, teacher, "model.teacher")
        self._teacher: list[nn.Module] = []  # no submodule: checkpoints and optimiser have none
        self.distillation_alpha = distillation_alpha
        self.mixup = _mixing(mixup, eventmix, num_classes, label_smoothing)
        # what mixes has smoothed labels already
        self.loss = nn.CrossEntropyLoss(label_smoothing=0.0 if self.mixup else label_smoothing)
        self.optimizer = typed(OptimizerConfig, optimizer or {}, "model.optimizer")
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
        causal = all(getattr(layer, "causal", True) for layer in self.model.modules())
        steps = self.model.time_steps if causal and self.model.time_steps > 1 else 0
        self.metrics_by_time_steps = nn.ModuleDict(
            {
                f"top1_t{step}": MulticlassAccuracy(num_classes, average="micro")
                for step in range(1, steps + 1)
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        """Images `(B, C, H, W)` or event frames `(B, T, C, H, W)` to logits `(B, num_classes)`."""
        return self.model(self._laid_out(x))

    def _laid_out(self, x: Tensor) -> Tensor:
        # frames are laid out anew where time is put first
        return x.contiguous(memory_format=self.memory_format) if x.dim() == 4 else x

    def configure_model(self) -> None:
        """Shard parameters if the strategy asks for it (FSDP)."""
        if self.device_mesh is None or isinstance(self.model, FSDPModule):
            return
        if self.memory_format == torch.channels_last:
            raise ConfigError(
                "model.channels_last=True and trainer.strategy=fsdp, which divides no weights in "
                "that layout; leave one out"
            )
        fully_shard(self.model, mesh=self.device_mesh["data_parallel"])

    def setup(self, stage: str) -> None:
        """Build the teacher of a training."""
        if stage == "fit" and self.teacher is not None and not self._teacher:
            self._teacher = [build_teacher(self.teacher, self.num_classes)]

    def on_fit_start(self) -> None:
        for teacher in self._teacher:
            teacher.to(self.device, cast(torch.dtype, self.dtype))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        if self.mixup is not None:
            self._require_mixable(images)
            if not isinstance(self.mixup, EventMix) and len(images) % 2:  # timm's pairs images
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
        if are_frames and getattr(self.mixup, "cutmix_alpha", 0) > 0:
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

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Return `logits` `(B, num_classes)` and `labels` `(B,)`, for callbacks."""
        images, labels = batch
        over_time = self.model.over_time(self._laid_out(images))
        if self.metrics_by_time_steps:
            for (name, metric), logits in zip(
                self.metrics_by_time_steps.items(), over_time, strict=True
            ):
                cast(MulticlassAccuracy, metric).update(logits, labels)
                self.log(name, cast(MulticlassAccuracy, metric))
        logits = over_time[-1]
        self.test_metrics.update(logits, labels)
        self.log_dict(self.test_metrics)
        return {"logits": logits, "labels": labels}

    def predict_step(self, batch: Tensor | tuple[Tensor, ...], batch_idx: int) -> Tensor:
        """Return probabilities `(B, num_classes)` of images, with labels beside them or without.

        Lightning's `BasePredictionWriter` gets the images' indices in the test split as
        `batch_indices`.
        """
        images = batch if isinstance(batch, Tensor) else batch[0]
        return self(images).softmax(1)

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self.model, self.optimizer)
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


def _mixing(
    mixup: MixupConfig | None,
    eventmix: EventMixConfig | None,
    num_classes: int,
    label_smoothing: float,
) -> Mixup | EventMix | None:
    """What mixes batches and their labels, if anything."""
    labels: dict[str, Any] = {"num_classes": num_classes, "label_smoothing": label_smoothing}
    if mixup is not None and eventmix is not None:
        raise ConfigError("model.mixup and model.eventmix; expected one of them")
    if mixup is not None:
        from timm.data import Mixup

        return Mixup(**labels, **asdict(typed(MixupConfig, mixup, "model.mixup")))
    if eventmix is not None:
        return EventMix(**labels, **asdict(typed(EventMixConfig, eventmix, "model.eventmix")))
    return None

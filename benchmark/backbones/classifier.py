"""A backbone with a spiking classification head."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from benchmark.backbones.zoo import Backbone, build_backbone
from benchmark.neurons import LIF


class Classifier(nn.Module):
    """Backbone -> spatial mean of the last map -> LIF -> linear -> mean over time.

    Args:
        backbone: a registered backbone's module.
        num_classes: how many logits.
        distillation: whether there is a second linear head that learns from a teacher.
    """

    def __init__(self, backbone: nn.Module, num_classes: int, distillation: bool = False) -> None:
        super().__init__()
        declared = cast(Backbone, backbone)
        channels = declared.feature_info[-1].channels
        self.backbone = backbone
        self.time_steps = declared.time_steps
        self.lif = LIF()
        self.head = nn.Linear(channels, num_classes)
        self.distillation_head = nn.Linear(channels, num_classes) if distillation else None

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Images `(B, C, H, W)` or event frames `(B, T, C, H, W)` to logits `(B, num_classes)`.

        With a distillation head, training gives the pair (logits, logits for the teacher's label),
        and evaluation the mean of the two heads.
        """
        spikes = self.lif(self.backbone(x)[-1].mean(dim=(-2, -1)))
        logits = self.head(spikes).mean(0)
        if self.distillation_head is None:
            return logits
        distilled = self.distillation_head(spikes).mean(0)
        return (logits, distilled) if self.training else (logits + distilled) / 2


def build_classifier(
    name: str, num_classes: int, time_steps: int = 1, distillation: bool = False, **overrides
) -> Classifier:
    """Build a registered backbone with a spiking classification head; see `Classifier`."""
    backbone = build_backbone(name, time_steps=time_steps, **overrides)
    return Classifier(backbone, num_classes, distillation)

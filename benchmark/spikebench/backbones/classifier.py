"""A backbone with a spiking classification head."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from spikebench.backbones.zoo import Backbone, build_backbone
from spikebench.neurons import LIF


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
        spikes = self._spikes(x)
        logits = self.head(spikes).mean(0)
        if self.distillation_head is None:
            return logits
        distilled = self.distillation_head(spikes).mean(0)
        return (logits, distilled) if self.training else (logits + distilled) / 2

    def over_time(self, x: Tensor) -> Tensor:
        """What the first time steps alone would say, in one pass.

        Args:
            x: images `(B, C, H, W)` or event frames `(B, T, C, H, W)`.

        Returns:
            Logits `(T, B, num_classes)`: place t - 1 has those after t time steps, place T - 1
            those of `forward` in evaluation.
        """
        spikes = self._spikes(x)
        logits = self.head(spikes)
        if self.distillation_head is not None:
            logits = (logits + self.distillation_head(spikes)) / 2
        steps = torch.arange(1, len(logits) + 1, device=logits.device)
        return logits.cumsum(0) / steps.view(-1, 1, 1)

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """By the name of a parameter the number of its layer, as timm's layer-wise decay asks.

        A layer is what the first two indices in a name tell apart, such as `stages.3.blocks.1`; the
        heads are the last one.
        """
        layers: dict[str, int] = {}
        for name, _ in self.backbone.named_parameters():
            layers.setdefault(_layer(name), len(layers))

        def number(name: str) -> int:
            inside = name.removeprefix("backbone.")
            return len(layers) if inside == name else layers[_layer(inside)]

        return number

    def _spikes(self, x: Tensor) -> Tensor:
        """Spikes that the heads read, `(T, B, C)`."""
        return self.lif(self.backbone(x)[-1].mean(dim=(-2, -1)))


def _layer(name: str) -> str:
    """The part of a parameter's name that its layer has.

    >>> _layer("stages.3.blocks.1.conv.0.weight"), _layer("layer1.0.bn.bias"), _layer("stem.weight")
    ('stages.3.blocks.1', 'layer1.0', 'stem.weight')
    """
    indexed = re.match(r"(?:.*?\.\d+){1,2}(?=\.)", name)
    return indexed.group() if indexed else name


def build_classifier(
    name: str, num_classes: int, time_steps: int = 1, distillation: bool = False, **overrides
) -> Classifier:
    """Build a registered backbone with a spiking classification head; see `Classifier`."""
    backbone = build_backbone(name, time_steps=time_steps, **overrides)
    return Classifier(backbone, num_classes, distillation)

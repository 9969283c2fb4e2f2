"""EventMix: two recordings in one batch of event frames."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

_WIDTHS = (0.1, 0.5)  # of Gaussians, as shares of the frames' duration and sides


class EventMix:
    """Puts a part of one recording's events into another, and mixes their labels alike.

    The part is where the density of a mixture of Gaussians in time and space, placed at random, is
    highest; how large it is is drawn from a beta distribution. A label's share is that of its
    recording in the sum of what the frames then hold (Shen et al., Information Sciences 644, 2023,
    arXiv 2205.11987, who count events).

    Args:
        num_classes: number of classes.
        alpha: both parameters of the beta distribution.
        prob: the probability with which a batch is mixed.
        components: number of Gaussians.
        label_smoothing: of the labels.
    """

    def __init__(
        self,
        num_classes: int,
        alpha: float = 1.0,
        prob: float = 0.5,
        components: int = 3,
        label_smoothing: float = 0.0,
    ) -> None:
        self.num_classes = num_classes
        self.alpha = alpha
        self.prob = prob
        self.components = components
        self.label_smoothing = label_smoothing

    def __call__(self, frames: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mix each recording with its opposite in the batch.

        Args:
            frames: counts, or what grows with them, `(B, T, 2, H, W)`.
            labels: classes, `(B,)`.

        Returns:
            Frames of the same shape and the shares of the classes, `(B, num_classes)`.
        """
        smooth = self.label_smoothing
        targets = one_hot(labels, self.num_classes) * (1 - smooth) + smooth / self.num_classes
        if torch.rand(()) >= self.prob:
            return frames, targets
        share = torch.distributions.Beta(self.alpha, self.alpha).sample().item()
        _, steps, _, height, width = frames.shape
        taken = self._part((steps, height, width), share).to(frames.device)[:, None]
        kept, added = frames * ~taken, frames.flip(0) * taken
        own, others = (part.sum((1, 2, 3, 4)) for part in (kept, added))
        both = own + others
        # of frames without an event the label stays
        weight = torch.where(both > 0, own / both.clamp(min=1e-12), 1.0)[:, None]
        return kept + added, weight * targets + (1 - weight) * targets.flip(0)

    def _part(self, shape: tuple[int, int, int], share: float) -> Tensor:
        """The places `(T, H, W)` of the highest density, `share` of all."""
        axes = [(torch.arange(size) + 0.5) / size for size in shape]
        low, high = _WIDTHS
        density = torch.zeros(shape)
        for _ in range(self.components):
            centre, width = torch.rand(3), low + (high - low) * torch.rand(3)
            t, y, x = (
                torch.exp(-(((axis - centre[i]) / width[i]) ** 2) / 2) / width[i]
                for i, axis in enumerate(axes)
            )
            density += torch.rand(()) * t[:, None, None] * y[:, None] * x
        part = torch.zeros(density.numel(), dtype=torch.bool)
        part[density.flatten().topk(round(share * density.numel())).indices] = True
        return part.view(shape)

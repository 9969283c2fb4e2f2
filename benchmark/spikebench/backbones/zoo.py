"""What every backbone shares: registration, building by name, and the form of its input."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn

from spikebench.registry import BACKBONES


class FeatureInfo(NamedTuple):
    """One map of a backbone: its channels and its true stride in pixels."""

    channels: int
    stride: int


@runtime_checkable
class Backbone(Protocol):
    """What a registered factory returns, apart from being an `nn.Module`."""

    time_steps: int
    feature_info: list[FeatureInfo]


def register_backbone(factory: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Register a function that returns a backbone under the function's own name.

    The module it returns has `time_steps`, `feature_info` (for each map `channels` and `stride`),
    and a forward from `(B, C, H, W)` or `(B, T, C, H, W)` to a tuple of maps
    `(T, B, C_i, H_i, W_i)`. `check_backbone` verifies all of it.
    """
    return BACKBONES.register(factory)


def build_backbone(name: str, **overrides) -> nn.Module:
    """Build a registered backbone.

    Args:
        name: as in `list_backbones()`.
        **overrides: arguments of the backbone, such as `time_steps`.

    Raises:
        UnknownNameError: nothing has that name; the message suggests near ones.
        TypeError: the backbone takes no such argument.
    """
    return BACKBONES.get(name)(**overrides)


def list_backbones(pattern: str = "*") -> list[str]:
    """Return the names of all backbones, those of other installed packages included.

    Args:
        pattern: a shell pattern that names must match, such as `"sew_*"`.
    """
    return BACKBONES.names(pattern)


def to_time_first(x: Tensor, time_steps: int, divisor: int) -> Tensor:
    """Bring a backbone's input to `(T, B, C, H, W)`.

    Args:
        x: an image batch `(B, C, H, W)`, repeated over time (direct coding) without a copy, or
            event frames `(B, T, C, H, W)`.
        time_steps: T.
        divisor: what height and width must be divisible by: the largest stride.

    Raises:
        ValueError: the shape does not fit.
    """
    if x.dim() not in (4, 5):
        raise ValueError(
            f"input of shape {tuple(x.shape)}; expected (B, C, H, W) or (B, T, C, H, W)"
        )
    height, width = x.shape[-2:]
    if height % divisor or width % divisor:
        raise ValueError(
            f"input of {height}x{width} pixels; both must be divisible by {divisor}: pad or resize"
        )
    if x.dim() == 4:
        return x.unsqueeze(0).expand(time_steps, -1, -1, -1, -1)
    if x.shape[1] != time_steps:
        raise ValueError(
            f"{x.shape[1]} event frames for a backbone with time_steps={time_steps}; "
            "build it with as many time steps as there are frames"
        )
    return x.transpose(0, 1)

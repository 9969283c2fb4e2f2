"""Clauses on what a backbone is and on the shapes of its maps."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from spikebench.backbones.contract.builder import Builder, Violation, expect_same, run
from spikebench.backbones.contract.report import definition


def builds(builder: Builder) -> None:
    """The factory takes `time_steps` and returns a module with `time_steps` and `feature_info`."""
    for time_steps in (1, builder.time_steps):
        model = builder.fresh(time_steps)
        if not isinstance(model, nn.Module):
            raise Violation(f"the factory returns {type(model).__name__}, not an nn.Module")
        declared = getattr(model, "time_steps", None)
        if declared != time_steps:
            raise Violation(f"built with time_steps={time_steps}, its time_steps is {declared}")
        infos: Any = getattr(model, "feature_info", None)
        if not infos:
            raise Violation(f"feature_info is {infos!r}; expected one entry for each map")
        for index, info in enumerate(infos):
            figures = [getattr(info, name, None) for name in ("channels", "stride")]
            if not all(isinstance(figure, int) and figure > 0 for figure in figures):
                raise Violation(
                    f"{info!r}; expected positive channels and stride", f"feature_info[{index}]"
                )


def feature_maps(builder: Builder) -> None:
    """At T = 1 and T = 4 a tuple of membrane maps, with the declared channels and strides."""
    strides = [info.stride for info in builder.feature_info]
    if strides != sorted(strides):
        raise Violation(f"strides {strides}; expected shallow to deep", "feature_info")
    images = builder.images(2)
    for time_steps in (1, 4):
        model = builder.settled(time_steps)
        maps = run(model, images)
        if not isinstance(maps, tuple):
            raise Violation(
                f"forward returns a {type(maps).__name__}; expected a tuple of maps",
                definition(type(model).forward),
            )
        if len(maps) != len(strides):
            raise Violation(
                f"{len(maps)} maps; feature_info declares {len(strides)}", "feature_info"
            )
        for index, (features, info) in enumerate(zip(maps, builder.feature_info, strict=True)):
            place = f"map {index} at T = {time_steps}"
            size = tuple(pixels // info.stride for pixels in images.shape[-2:])
            expected = (time_steps, len(images), info.channels, *size)
            if tuple(features.shape) != expected:
                raise Violation(
                    f"shape {tuple(features.shape)}; feature_info declares {info.channels} "
                    f"channels at stride {info.stride}, so (T, B, C, H, W) = {expected}",
                    place,
                )
            if not features.isfinite().all():
                raise Violation("it is not finite", place)
            if torch.equal(features, features.round()):
                raise Violation("it holds whole numbers, such as spikes, not membranes", place)


def any_size(builder: Builder) -> None:
    """Height and width may be any multiples of the largest stride, odd or unequal ones too."""
    model = builder.settled()
    square = run(model, builder.images(1))
    for height, width in ((1, 3), (3, 2)):
        images = builder.images(1, height, width)
        for index, (features, like) in enumerate(zip(run(model, images), square, strict=True)):
            expected = (like.shape[-2] * height // 2, like.shape[-1] * width // 2)
            if tuple(features.shape[-2:]) != expected:
                raise Violation(
                    f"{tuple(features.shape[-2:])} for an image of {tuple(images.shape[-2:])} "
                    f"pixels; expected {expected}",
                    f"map {index}",
                )


def event_frames(builder: Builder) -> None:
    """Event frames (B, T, C, H, W) that repeat an image give that image's maps."""
    images = builder.images(2)
    frames = images.unsqueeze(1).repeat(1, builder.time_steps, 1, 1, 1)
    of_images = run(builder.settled(), images)
    of_frames = run(builder.settled(), frames)
    expect_same(of_images, of_frames, "frames that repeat an image give other maps than the image")

"""Loading weights, and only weights, from the layouts people have."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.backbones.published import from_published, published_prefix
from benchmark.errors import UserError

_WRAPPERS = ("state_dict", "model", "model_state_dict", "module")


class WeightsError(UserError, ValueError):
    """Weights cannot be read, or do not fit; the message names the file or the keys."""


def load_weights(model: nn.Module, source: str | Path | Mapping[str, Any]) -> nn.Module:
    """Load weights into a backbone or a classifier, strictly.

    Args:
        model: what `build_backbone` or `build_classifier` returned.
        source: a file (`.safetensors`, or anything `torch.save` wrote) or a state dict. Understood
            are the layout of this project, that of the published Meta-SpikeFormer code, either
            wrapped (`{"model": ...}`, `{"state_dict": ...}`), and keys with a common prefix
            (`module.`, `model.`, `backbone.`). What lies outside the prefix is not the model's and
            is left out: so a classifier's weights load into its backbone.

    Returns:
        The model.

    Raises:
        WeightsError: the file is missing, truncated or holds more than weights; or keys are
            missing, left over or of another shape, in which case the model is unchanged.
    """
    where = "the given weights" if isinstance(source, Mapping) else str(source)
    state = _unwrap(source if isinstance(source, Mapping) else read_weights(source))
    prefix = published_prefix(state)
    if prefix is not None:
        state = {
            from_published(key.removeprefix(prefix)): value
            for key, value in state.items()
            if key.startswith(prefix)
        }
    own = model.state_dict()
    state = _without_prefix(state, own)
    missing = sorted(own.keys() - state.keys())
    unexpected = sorted(state.keys() - own.keys())
    fitted, misshapen = {}, []
    for key in own.keys() & state.keys():
        value = _drop_unit_axes(state[key], own[key])
        if value.shape != own[key].shape:
            misshapen.append(f"{key} {tuple(value.shape)} for {tuple(own[key].shape)}")
        fitted[key] = value
    problems = [
        f"{len(keys)} {what}: {', '.join(keys[:5])}{', ...' if len(keys) > 5 else ''}"
        for what, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", sorted(misshapen)),
        )
        if keys
    ]
    if problems:
        raise WeightsError(f"{where} do not fit {type(model).__name__}: {'; '.join(problems)}")
    model.load_state_dict(fitted)
    return model


def read_weights(path: str | Path) -> Mapping[str, Any]:
    """Read a file of weights without running any code from it.

    Raises:
        WeightsError: the file is missing, truncated, or holds objects that are not weights.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"no such file: {path}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        # the published checkpoints hold their arguments, which are plain data, beside the weights
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().split("\n")[0].split(". This file can still")[0]
        raise WeightsError(
            f"{path} cannot be read as weights (truncated, or more than weights): {reason}"
        ) from error
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not a mapping of weights")
    return content


def _unwrap(source: Mapping[str, Any]) -> dict[str, Tensor]:
    for wrapper in _WRAPPERS:
        inner = source.get(wrapper)
        if isinstance(inner, Mapping):
            return _unwrap(inner)
    return {key: value for key, value in source.items() if isinstance(value, Tensor)}


def _without_prefix(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Strip the prefix under which most of the model's keys are found."""
    first = next(iter(own), "")
    prefixes = {key.removesuffix(first) for key in state if key.endswith(first)}
    best = max(prefixes, key=lambda p: (sum(p + key in state for key in own), -len(p)), default="")
    return {key.removeprefix(best): value for key, value in state.items() if key.startswith(best)}


def _drop_unit_axes(value: Tensor, like: Tensor) -> Tensor:
    """A 1-D pointwise convolution (O, I, 1) and a 2-D one (O, I, 1, 1) are the same weights."""
    same = [n for n in value.shape if n != 1] == [n for n in like.shape if n != 1]
    pointwise = value.dim() == 3 and like.dim() == 4
    return value.reshape(like.shape) if same and pointwise else value

"""Loading weights, and nothing but weights, from the layouts in use."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spikebench.errors import UserError
from spikebench.weights.published import find_layout

_WRAPPERS = ("state_dict", "model", "model_state_dict", "module")


class WeightsError(UserError, ValueError):
    """Weights cannot be read, or do not fit; the message names the file or the keys."""


def load_weights(model: nn.Module, source: str | Path | Mapping[str, Any]) -> nn.Module:
    """Load weights into a backbone or a classifier, strictly.

    Args:
        model: what `build_backbone` or `build_classifier` returned.
        source: a file (`.safetensors`, or anything `torch.save` wrote) or a state dict. Understood
            are the layout of this project and those of published codes (`weights.published`),
            either wrapped (`{"model": ...}`, `{"state_dict": ...}`), and keys with a common prefix
            (`module.`, `model.`, `backbone.`). What lies outside the prefix is not the model's and
            is left out, so a classifier's weights load into its backbone. A distillation head is
            never left out: the mean of both heads is what was trained. T may differ, unless
            neurons learn weights over time.

    Returns:
        The model.

    Raises:
        WeightsError: the file is missing, truncated or holds more than weights; or keys are
            missing, left over or of another shape, in which case the model is unchanged.
    """
    where = "the given weights" if isinstance(source, Mapping) else str(source)
    state = in_our_layout(source if isinstance(source, Mapping) else read_weights(source))
    own = model.state_dict()
    state = _without_prefix(state, own)
    missing = sorted(own.keys() - state.keys())
    unexpected = sorted(state.keys() - own.keys())
    misshapen = sorted(
        key for key in own.keys() & state.keys() if state[key].shape != own[key].shape
    )
    shapes = [f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}" for key in misshapen]
    problems = [
        f"{len(keys)} {what}: {', '.join(keys[:5])}{', ...' if len(keys) > 5 else ''}"
        for what, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", shapes),
        )
        if keys
    ]
    if problems:
        raise WeightsError(
            f"{where} do not fit {type(model).__name__}: {'; '.join(problems)}"
            f"{_distillation_hint(missing, unexpected)}"
            f"{_time_steps_hint(model, [(state[key], own[key]) for key in misshapen])}"
        )
    model.load_state_dict(state)
    return model


def in_our_layout(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The model's tensors in a checkpoint, unwrapped, the published ones under our names."""
    state = unwrap(content)
    found = find_layout(state)
    if found is None:
        return state
    layout, prefix = found
    return layout.translate(state, prefix)


def head_arguments(source: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `build_classifier` that follow from a classifier's weights.

    Args:
        source: as in `load_weights`.

    Returns:
        `num_classes` and `distillation`; nothing if the weights have no classification head.

    Example:
        >>> head_arguments({"head.weight": torch.ones(10, 160), "head.bias": torch.ones(10)})
        {'num_classes': 10, 'distillation': False}
    """
    state = in_our_layout(source if isinstance(source, Mapping) else read_weights(source))
    heads = {
        name: value
        for key, value in state.items()
        for name in ("head", "distillation_head")
        if key == f"{name}.weight" or key.endswith(f".{name}.weight")
    }
    if "head" not in heads:
        return {}
    return {"num_classes": len(heads["head"]), "distillation": "distillation_head" in heads}


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
        # published checkpoints hold their arguments, which are plain data, beside the weights
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


def unwrap(source: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a checkpoint: those under `model`, `state_dict` and the like, if any."""
    for wrapper in _WRAPPERS:
        inner = source.get(wrapper)
        if isinstance(inner, Mapping):
            return unwrap(inner)
    return {key: value for key, value in source.items() if isinstance(value, Tensor)}


def _without_prefix(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Strip the prefix under which most of the model's keys are found."""
    first = next(iter(own), "")
    prefixes = {key.removesuffix(first) for key in state if key.endswith(first)}
    best = max(prefixes, key=lambda p: (sum(p + key in state for key in own), -len(p)), default="")
    return {key.removeprefix(best): value for key, value in state.items() if key.startswith(best)}


def _distillation_hint(missing: list[str], unexpected: list[str]) -> str:
    head = ["distillation_head.bias", "distillation_head.weight"]
    if (missing, unexpected) == ([], head):
        return "; they are distilled: build the classifier with distillation=True"
    if (missing, unexpected) == (head, []):
        return "; they are not distilled: build the classifier with distillation=False"
    return ""


def _time_steps_hint(model: nn.Module, misshapen: list[tuple[Tensor, Tensor]]) -> str:
    """Neurons such as PSN hold a matrix (T, T) and a bias (T, 1)."""
    steps = getattr(model, "time_steps", None)
    others = {len(value) for value, _ in misshapen if value.dim()}
    for other in others if len(others) == 1 else ():
        pairs = {(tuple(value.shape), tuple(like.shape)) for value, like in misshapen}
        if pairs <= {((other, other), (steps, steps)), ((other, 1), (steps, 1))}:
            return (
                f"; they are of neurons that learn a matrix over time: build with "
                f"time_steps={other}, or train for time_steps={steps}"
            )
    return ""

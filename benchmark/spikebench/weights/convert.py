"""Rewriting checkpoints of any known layout as safetensors in this project's layout."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from spikebench.backbones.zoo import build_backbone, list_backbones
from spikebench.files import replacing, sha256
from spikebench.weights.loading import WeightsError, in_our_layout, read_weights, unwrap

log = logging.getLogger("spikebench")

_WRAPPERS = ("module.", "model.", "_orig_mod.")
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Conversion:
    """What was written.

    Attributes:
        tensors: how many tensors.
        parameters: how many numbers in them, the statistics of batch norms aside.
        left_out: tensors of the source that are not the model's, such as those of a loss.
        fits: the registered backbone whose tensors have these names and shapes, built with its
            default arguments; None if there is none.
    """

    tensors: int
    parameters: int
    left_out: int
    fits: str | None


def convert_weights(source: str | Path, destination: str | Path, force: bool = False) -> Conversion:
    """Write the weights of a checkpoint, and nothing else, as a safetensors file.

    The metadata hold the source's name and SHA-256. The file is written whole or not at all.

    Args:
        source: a file as `load_weights` takes it.
        destination: a path that ends in `.safetensors`.
        force: whether to replace a file that exists.

    Raises:
        WeightsError: the source is missing or holds no weights, or more than weights; or the
            destination has another suffix or exists.
    """
    source, destination = Path(source), Path(destination)
    if destination.suffix != ".safetensors":
        raise WeightsError(f"destination {destination}; expected a name that ends in .safetensors")
    if destination.exists() and not force:
        raise WeightsError(f"{destination} exists; use --force to replace it")
    content = read_weights(source)
    state = _without_wrapper(in_our_layout(content))
    if not state:
        raise WeightsError(f"{source} holds no weights")
    metadata = {
        "format": "pt",
        "layout": "spikebench",
        "source": source.name,
        "source_sha256": sha256(source),
    }
    # copies: a file cannot hold tensors that share memory
    tensors = {key: value.detach().clone().contiguous() for key, value in state.items()}
    with replacing(destination) as temporary:
        save_file(tensors, temporary, metadata)
    return Conversion(
        tensors=len(state),
        parameters=sum(v.numel() for k, v in state.items() if not k.endswith(_BUFFERS)),
        left_out=len(unwrap(content)) - len(state),
        fits=_fitting_backbone(state),
    )


def _without_wrapper(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A classifier without what surrounded it; others without a prefix that all keys share."""
    for key in state:
        match = re.fullmatch(r"(|.*\.)head\.weight", key)
        if match and any(other.startswith(f"{match[1]}backbone.") for other in state):
            return _below(match[1], state)
    for wrapper in _WRAPPERS:
        if state and all(key.startswith(wrapper) for key in state):
            return _without_wrapper(_below(wrapper, state))
    return dict(state)


def _below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): value for k, value in state.items() if k.startswith(prefix)}


def _fitting_backbone(state: Mapping[str, Tensor]) -> str | None:
    found = _below("backbone.", state) or state
    shapes = {key: value.shape for key, value in found.items()}
    for name in list_backbones():
        try:
            with torch.device("meta"):
                own = build_backbone(name).state_dict()
        except Exception as error:
            log.warning("%s not compared: it cannot be built on the meta device: %s", name, error)
            continue
        if {key: value.shape for key, value in own.items()} == shapes:
            return name
    return None

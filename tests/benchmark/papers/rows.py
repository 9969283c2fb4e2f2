"""Rows of small tables, and the classifier that they are about."""

from __future__ import annotations

from typing import Any

import torch

from spikebench.backbones import build_classifier

NANO = "meta_spikeformer_nano"
SMALL: dict[str, Any] = {"embed_dims": [8, 16, 16, 16], "num_heads": 2}
BUILD: dict[str, Any] = {"backbone": NANO, "num_classes": 5, "arguments": SMALL}
FIGURES: dict[str, Any] = {
    "params_m": {"title": "Parameters", "unit": "M"},
    "energy_mj": {"title": "Energy", "unit": "mJ"},
    "top1": {"title": "Top-1", "unit": "%", "metric": "score"},
}


def row(id_: str, **keys: Any) -> dict[str, Any]:
    """A row of a small classifier, unless the keys say otherwise."""
    seen = {"params_m": 0.1, "energy_mj": 0.01, "top1": 50.0}
    return {"id": id_, "model": NANO, "time_steps": 1, "seen": seen, "build": BUILD, **keys}


def small_classifier(
    time_steps: int = 1, seed: int = 0, num_classes: int = 5, **options: Any
) -> torch.nn.Module:
    """What `BUILD` describes, its weights drawn with a seed."""
    torch.manual_seed(seed)
    return build_classifier(NANO, num_classes, time_steps, **{**SMALL, **options}).eval()

"""spikebench: one spiking backbone, trained and scored on three vision tasks."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmark.backbones import (
        build_backbone,
        build_classifier,
        list_backbones,
        register_backbone,
    )
    from benchmark.backbones.contract import check_backbone
    from benchmark.backbones.weights import load_weights
    from benchmark.energy.counter import profile_operations

__version__ = "0.1.0"

__all__ = [
    "build_backbone",
    "build_classifier",
    "check_backbone",
    "list_backbones",
    "load_weights",
    "profile_operations",
    "register_backbone",
]

_HOMES = {
    "check_backbone": "benchmark.backbones.contract",
    "load_weights": "benchmark.backbones.weights",
    "profile_operations": "benchmark.energy.counter",
}


def __getattr__(name: str) -> Any:
    """Import torch only when something that needs it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES.get(name, "benchmark.backbones")), name)

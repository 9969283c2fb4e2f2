"""spikebench: one spiking backbone, trained and scored on three vision tasks."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spikebench.backbones import (
        build_backbone,
        build_classifier,
        list_backbones,
        register_backbone,
    )
    from spikebench.backbones.contract import check_backbone
    from spikebench.energy.profile import profile_operations
    from spikebench.weights.loading import load_weights

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
    "check_backbone": "spikebench.backbones.contract",
    "load_weights": "spikebench.weights.loading",
    "profile_operations": "spikebench.energy.profile",
}


def __getattr__(name: str) -> Any:
    """Import torch only when something that needs it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES.get(name, "spikebench.backbones")), name)

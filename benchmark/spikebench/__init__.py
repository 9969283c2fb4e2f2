"""spikebench: one spiking backbone, trained and scored on three vision tasks.

Everything in `__all__` is imported when it is first asked for: `import spikebench` loads neither
torch nor pydantic.

Example:
    >>> import spikebench
    >>> spikebench.list_backbones("meta_spikeformer_?5m")
    ['meta_spikeformer_15m', 'meta_spikeformer_55m']
"""

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
    from spikebench.energy.estimators import energies, load_estimators
    from spikebench.energy.profile import profile_operations
    from spikebench.forms import DEPLOY_FORMS
    from spikebench.inference.deploy import deploy, in_form
    from spikebench.inference.event_conv import use_event_convs
    from spikebench.inference.export import export_onnx
    from spikebench.neurons import IF, ILIF, LIF, PLIF, PSN, use_backend
    from spikebench.registry import BACKBONES, DATASETS, ESTIMATORS, NEURONS, TASKS
    from spikebench.results import Record, find_records
    from spikebench.suites.runner import evaluate, run_suite
    from spikebench.task import Task
    from spikebench.weights.convert import convert_weights
    from spikebench.weights.loading import load_weights

__version__ = "0.1.0"

_HOMES = {
    "spikebench.backbones": (
        "build_backbone",
        "build_classifier",
        "list_backbones",
        "register_backbone",
    ),
    "spikebench.backbones.contract": ("check_backbone",),
    "spikebench.energy.estimators": ("energies", "load_estimators"),
    "spikebench.energy.profile": ("profile_operations",),
    "spikebench.forms": ("DEPLOY_FORMS",),
    "spikebench.inference.deploy": ("deploy", "in_form"),
    "spikebench.inference.event_conv": ("use_event_convs",),
    "spikebench.inference.export": ("export_onnx",),
    "spikebench.neurons": ("IF", "ILIF", "LIF", "PLIF", "PSN", "use_backend"),
    "spikebench.registry": ("BACKBONES", "DATASETS", "ESTIMATORS", "NEURONS", "TASKS"),
    "spikebench.results": ("Record", "find_records"),
    "spikebench.suites.runner": ("evaluate", "run_suite"),
    "spikebench.task": ("Task",),
    "spikebench.weights.convert": ("convert_weights",),
    "spikebench.weights.loading": ("load_weights",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "BACKBONES",
    "DATASETS",
    "DEPLOY_FORMS",
    "ESTIMATORS",
    "IF",
    "ILIF",
    "LIF",
    "NEURONS",
    "PLIF",
    "PSN",
    "TASKS",
    "Record",
    "Task",
    "build_backbone",
    "build_classifier",
    "check_backbone",
    "convert_weights",
    "deploy",
    "energies",
    "evaluate",
    "export_onnx",
    "find_records",
    "in_form",
    "list_backbones",
    "load_estimators",
    "load_weights",
    "profile_operations",
    "register_backbone",
    "run_suite",
    "use_backend",
    "use_event_convs",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

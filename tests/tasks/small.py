"""Configurations of detection and segmentation, and what makes a step of any of them short."""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from spikebench.registry import TASKS
from spikebench.task import Task
from spikebench_tasks.config import read_config
from spikebench_tasks.openmmlab import task as openmmlab_task
from spikebench_tasks.openmmlab.data import SPLITS, leaves

CONFIGS = Path(__file__).parents[2] / "configs"
PATHS = sorted(
    path for task in ("detection", "segmentation") for path in CONFIGS.glob(f"{task}/*.py")
)
NANO = "meta_spikeformer_nano"
KINDS: dict[str, list[Path]] = {}
"""Configurations by name without size and time steps; those of a kind are alike but for these."""
for _path in PATHS:
    _kind = re.sub(r"_(15m|31m|55m|t\d)(?=_)|(?<=_resnet)\d+", "", _path.stem)
    KINDS.setdefault(_kind, []).append(_path)

_OF_SIZE = (
    *("backbone.name", "backbone.time_steps", "backbone.depth", "backbone.init_cfg.checkpoint"),
    *("neck.in_channels", "neck.out_channels"),
)
_LARGE = 128  # pixels
_SMALLER = 8


_read = functools.cache(read_config)  # MMEngine takes most of a second for a file


def described_backbone(path: Path) -> dict[str, Any]:
    """What a configuration says of its backbone."""
    return copy.deepcopy(_read(path)["model"]["backbone"])


def is_spiking(path: Path) -> bool:
    """Whether its backbone is a registered one; else it is an ANN of the stock packages."""
    return described_backbone(path)["type"] == "SpikingBackbone"


def resolved(
    path: Path, *overrides: str, backbone: str | None = None, **arguments: Any
) -> tuple[Task, dict[str, Any]]:
    """A configuration of detection or segmentation as its task resolves it.

    Args:
        path: the file.
        *overrides: `key.path=value`.
        backbone: a registered one in place of its own; an ANN keeps what it has.
        **arguments: of the backbone.
    """
    described = described_backbone(path)
    name = described.get("name", described["type"].lower())
    if backbone is not None and is_spiking(path):
        name = backbone
    task: Task = TASKS.get(path.parent.name)()
    with mock.patch.object(openmmlab_task, "read_config", lambda path: copy.deepcopy(_read(path))):
        return task, task.resolve(path, name, arguments, overrides)


def without_size(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration without what makes its model larger."""
    config = copy.deepcopy(config)
    for key in _OF_SIZE:
        *parents, last = key.split(".")
        node = functools.reduce(lambda node, name: node.get(name) or {}, parents, config["model"])
        node.pop(last, None)
    return config


def data_of(config: dict[str, Any]) -> set[str]:
    """The folders below the data root that its data sets and evaluators name."""
    described = [config[f"{split}_dataloader"]["dataset"] for split in SPLITS]
    sets = [leaf for one in described for _, leaf in leaves(one)]
    named = [one.get("data_root") for one in sets]
    named += [config[f"{split}_evaluator"].get("ann_file") for split in ("val", "test")]
    folders = {Path(name).parts[1] for name in named if name}
    if any(one["type"].startswith("DigitScenes") for one in sets):
        folders.add("digit_scenes")
    return folders


def sizes(node: Any, key: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Every pair of sides that images are brought to, with the key it stands under."""
    children = node.items() if isinstance(node, dict) else ()
    if isinstance(node, list):
        children = enumerate(node)
    for name, value in children:
        here = f"{key}.{name}"
        if name in ("scale", "crop_size", "size") and len(value) == 2:
            yield here, tuple(value)
        else:
            yield from sizes(value, here)


def shrinking(config: dict[str, Any]) -> list[str]:
    """Overrides that make its images small, unless they are."""
    parts = {f"{split}_dataloader": config[f"{split}_dataloader"] for split in SPLITS}
    parts["model.data_preprocessor"] = config["model"]["data_preprocessor"]
    found = [each for key, part in parts.items() for each in sizes(part, key)]
    if all(side <= _LARGE for _, pair in found for side in pair):
        return []
    return [f"{key}={tuple(side // _SMALLER for side in pair)}" for key, pair in found]


def short(config: dict[str, Any]) -> list[str]:
    """Overrides for one epoch or iteration of two images, in one process, without a download."""
    length = "max_epochs" if config["train_cfg"]["type"] == "EpochBasedTrainLoop" else "max_iters"
    overrides = [f"train_cfg.{length}=1", "train_dataloader.batch_size=2"]
    for split in SPLITS:
        overrides.append(f"{split}_dataloader.num_workers=0")
        if "persistent_workers" in config[f"{split}_dataloader"]:
            overrides.append(f"{split}_dataloader.persistent_workers=False")
    if config["model"]["backbone"].get("init_cfg"):
        overrides.append("model.backbone.init_cfg=None")
    return overrides + shrinking(config)

"""Detectors and segmentors so small that training one takes seconds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch.nn.modules.batchnorm import _BatchNorm

from spikebench.task import Run
from spikebench_tasks.openmmlab.task import OpenMMLabTask

ROOT = Path(__file__).parents[3]
CONFIGS = {
    "detection": ROOT / "configs" / "detection" / "mask_rcnn_digit_scenes.py",
    "segmentation": ROOT / "configs" / "segmentation" / "semantic_fpn_digit_scenes.py",
}
SIDE = {"detection": 64, "segmentation": 32}


def tiny_config(task: str, **changes: Any) -> dict[str, Any]:
    """A configuration on small digit scenes: 2 images a step, flips and dropout, 2 epochs.

    Args:
        task: "detection" or "segmentation".
        **changes: merged into the configuration; a dictionary with `_delete_` replaces.
    """
    config = OpenMMLabTask().resolve(CONFIGS[task], "meta_spikeformer_nano", {}, [])
    side = SIDE[task]
    resize = {"type": "Resize", "scale": (side, side), "keep_ratio": False}
    flip = {"type": "RandomFlip", "prob": 0.5}
    train = config["train_dataloader"]["dataset"]["pipeline"]
    test = config["test_dataloader"]["dataset"]["pipeline"]
    config["train_dataloader"]["dataset"]["pipeline"] = [*train[:-1], resize, flip, train[-1]]
    kept = [step for step in test if step["type"] != "Resize"]
    config["test_dataloader"]["dataset"]["pipeline"] = [kept[0], resize, *kept[1:]]
    config["train_dataloader"]["batch_size"] = 2
    config["train_cfg"]["max_epochs"] = 2
    config["default_hooks"]["checkpoint"] = {"type": "PlainCheckpointHook", "interval": 1}
    if task == "segmentation":
        config["model"]["data_preprocessor"]["size"] = (side, side)
    _merge(config, changes)
    return config


def iterations(count: int, every: int, infinite: bool) -> dict[str, Any]:
    """Changes that have a training count iterations, of a sampler that ends or does not."""
    sampler = "InfiniteSampler" if infinite else "DefaultSampler"
    return {
        "train_cfg": {"_delete_": True, "type": "IterBasedTrainLoop", "max_iters": count},
        "train_dataloader": {"sampler": {"type": sampler}},
        "default_hooks": {"checkpoint": {"by_epoch": False, "interval": every}},
        "param_scheduler": [{"type": "PolyLR", "by_epoch": False, "end": count, "eta_min": 0.0}],
        "log_processor": {"by_epoch": False},
    }


def _merge(into: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            if value.get("_delete_"):
                into[key] = {name: each for name, each in value.items() if name != "_delete_"}
            else:
                _merge(into[key], value)
        else:
            into[key] = value


def tiny_run(folder: Path, task: str, config: dict[str, Any], limit: int | None = 6) -> Run:
    """A run of a configuration in a folder of its own, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    return Run(
        key="key",
        suite="test",
        backbone="meta_spikeformer_nano",
        task=task,
        protocol="tiny",
        seed=0,
        config=config,
        folder=folder,
        tensorboard=folder / "tensorboard",
        limit=limit,
    )


@HOOKS.register_module()
class StopAt(Hook):
    """Ctrl-C after so many iterations, and after what is saved then."""

    priority = "LOWEST"

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if runner.iter + 1 == self.iteration:
            raise KeyboardInterrupt


@HOOKS.register_module()
class FreezeNorms(Hook):
    """Norms that no batch has a say in, so that the loss is the mean over images."""

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        for module in runner.model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()


@HOOKS.register_module()
class NoteLoss(Hook):
    """Writes the loss of each iteration to a file, in the main process."""

    priority = "LOW"

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if runner.rank == 0:
            with self.path.open("a") as stream:
                stream.write(f"{float(outputs['loss'])!r}\n")

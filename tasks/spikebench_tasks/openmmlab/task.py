"""A task of the core on top of an ordinary MMDetection or MMSegmentation configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spikebench.datacheck import SplitCheck
from spikebench.registry import BACKBONES, unknown_name
from spikebench.task import ConfigError, Evaluation, Probe, Run
from spikebench_tasks.base import BaseTask
from spikebench_tasks.config import overridden, read_config

_RUNNER_KEYS = frozenset(
    {
        "auto_scale_lr",
        "compile",
        "custom_hooks",
        "custom_imports",
        "data_preprocessor",
        "default_hooks",
        "default_scope",
        "env_cfg",
        "find_unused_parameters",
        "load_from",
        "log_level",
        "log_processor",
        "model",
        "model_wrapper_cfg",
        "optim_wrapper",
        "param_scheduler",
        "sync_bn",
        "tta",
        "tta_model",
        "tta_pipeline",
        *(
            f"{split}_{part}"
            for split in ("train", "val", "test")
            for part in ("cfg", "dataloader")
        ),
        "test_evaluator",
        "val_evaluator",
    }
)
"""What MMEngine's Runner reads of a configuration, less what a run decides, and `tta`: whether
testing is that of `tools/test.py --tta`."""


class OpenMMLabTask(BaseTask):
    """Trains, scores and probes with MMEngine's Runner, imported when first needed."""

    packages: tuple[str, ...] = (
        "mmengine",
        "mmcv-lite|mmcv",
        "opencv-python-headless|opencv-python",
    )

    def resolve(
        self,
        config: Path,
        backbone: str | None,
        arguments: Mapping[str, Any],
        overrides: Sequence[str],
    ) -> dict[str, Any]:
        read = read_config(config)
        resolved = overridden(_without_helpers(read), overrides, config.name)
        _settle_augmented_testing(resolved, overrides, config)
        model = resolved.get("model")
        described = model.get("backbone") if isinstance(model, dict) else None
        kind = described.get("type") if isinstance(described, dict) else described
        registered = BACKBONES.names()
        if kind == "SpikingBackbone" and backbone is not None and backbone not in registered:
            raise unknown_name("backbone", backbone, registered)
        if not isinstance(described, dict) or kind is None:
            raise ConfigError(f"{config}: model.backbone is {described!r}; expected a dictionary")
        if kind != "SpikingBackbone":
            if backbone in registered or arguments:
                raise ConfigError(
                    f"{config}: model.backbone.type is {kind!r}, not 'SpikingBackbone', which "
                    f"takes any registered backbone; a suite names what this one is: {{task: ..., "
                    f"config: ..., backbone: {str(kind).lower()}}}"
                )
            return resolved
        if backbone is not None:
            described["name"] = backbone
        described["arguments"] = {**(described.get("arguments") or {}), **arguments}
        return resolved

    def backbone_of(self, config: Mapping[str, Any]) -> str:
        """The registered name in `model.backbone`, or the type of an ANN in lower case."""
        described = config["model"]["backbone"]
        return described.get("name") or str(described["type"]).lower()

    def train(self, run: Run) -> Path:
        from spikebench_tasks.openmmlab import loop

        return loop.train(run)

    def evaluate(self, run: Run, checkpoint: Path) -> Evaluation:
        from spikebench_tasks.openmmlab import loop

        return loop.evaluate(run, checkpoint)

    def probe(self, run: Run, checkpoint: Path) -> Probe:
        from spikebench_tasks.openmmlab import loop

        return loop.probe(run, checkpoint)

    def sketch(self, config: Mapping[str, Any]) -> Probe:
        from spikebench_tasks.openmmlab.sketch import sketch

        return sketch(config)

    def check_data(
        self, config: Path, overrides: Sequence[str], data_root: Path
    ) -> list[SplitCheck]:
        from spikebench_tasks.openmmlab.checks.data import check_data

        read = _without_helpers(read_config(config))
        return check_data(overridden(read, overrides, config.name), data_root)


def _settle_augmented_testing(config: dict[str, Any], overrides: Sequence[str], path: Path) -> None:
    """Leave out how test images would be augmented where they are not.

    Raises:
        ConfigError: they are to be, and how is not said or cannot be done; or they are not, and an
            override says how.
    """
    from spikebench_tasks.openmmlab.data import count_views

    asked = config.get("tta", False)
    if not isinstance(asked, bool):
        raise ConfigError(f"{path}: tta is {asked!r}; expected True or False")
    if not asked:
        config.pop("tta", None)
        for key in ("tta_model", "tta_pipeline"):
            config.pop(key, None)
            if any(each.lstrip("+").startswith(key) for each in overrides):
                raise ConfigError(f"{path}: {key} has no effect without tta=True; set that too")
        return
    if not config.get("tta_model") or count_views(config.get("tta_pipeline") or ()) == 0:
        raise ConfigError(
            f"{path}: tta=True needs a tta_model that merges views and a tta_pipeline that ends in "
            "TestTimeAug, as tools/test.py --tta does; one is missing"
        )
    merges, heads = config["tta_model"]["type"], config["model"].get("roi_head") or {}
    if merges == "DetTTAModel" and heads.get("mask_head"):
        raise ConfigError(
            f"{path}: tta=True: DetTTAModel merges boxes and no masks, and the model has a "
            "mask_head; expected a detector of boxes"
        )


def _without_helpers(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration less the helper variables of its files.

    The stock files that it inherits leave theirs in it; an override of one would be accepted, and
    without effect.
    """
    model = config.get("model")
    unread = (
        {"data_preprocessor"} if isinstance(model, dict) and "data_preprocessor" in model else {}
    )
    return {key: config[key] for key in config if key in _RUNNER_KEYS - set(unread)}

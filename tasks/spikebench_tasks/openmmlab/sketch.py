"""The untrained detector or segmentor of a configuration, and a random image."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.utils import import_modules_from_strings

from spikebench.results import BackboneInfo
from spikebench.task import ConfigError, Probe

_SAMPLES = {"mmdet": "DetDataSample", "mmseg": "SegDataSample"}


def sketch(config: Mapping[str, Any]) -> Probe:
    """Build the model and one batch in the form of its data loader.

    The forward pass is the one that MMDetection and MMSegmentation count FLOPs of: a detector's box
    head reads all proposals and its mask head the first 100, so that the count does not hang on how
    much a random detector finds.

    Raises:
        ConfigError: the configuration names no test size.
    """
    described = Config(dict(config))
    import_modules_from_strings(**described.custom_imports)
    height, width = _test_size(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope(described.default_scope):
            model = MODELS.build(described.model)
        image = torch.randint(256, (3, height, width), dtype=torch.uint8)
    structures = import_module(f"{described.default_scope}.structures")
    shape = (height, width)
    about = {"img_shape": shape, "ori_shape": shape, "pad_shape": shape, "scale_factor": (1.0, 1.0)}
    sample = getattr(structures, _SAMPLES[described.default_scope])(metainfo=about)
    batches = [{"inputs": [image], "data_samples": [sample]}]
    info = backbone_info(model, config)
    return Probe(model.eval(), batches, _forward, info, images=images_of)


def images_of(batch: Mapping[str, Any]) -> Any:
    """The images of a batch of MMEngine's data loaders: one tensor each."""
    return batch["inputs"]


def backbone_info(model: Any, config: Mapping[str, Any]) -> BackboneInfo:
    """Describe the backbone of a detector or segmentor, spiking or stock (an ANN)."""
    backbone, described = model.backbone, config["model"]["backbone"]
    own = {key: value for key, value in described.items() if key not in ("type", "init_cfg")}
    return BackboneInfo(
        name=described.get("name", described["type"]),
        arguments=described["arguments"] if "name" in described else own,
        time_steps=getattr(backbone, "time_steps", 1),
        parameters=sum(weight.numel() for weight in backbone.parameters()),
    )


def _forward(model: Any, batch: Any) -> Any:
    return model(**model.data_preprocessor(batch, False), mode="tensor")


def _test_size(config: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width of test images: the preprocessor's, or those of the last resize.

    MMSegmentation's pipelines resize to a shorter side; the size that a protocol is known by, and
    that crops have in training, is the preprocessor's.
    """
    size = config["model"].get("data_preprocessor", {}).get("size")
    if size is not None:
        return tuple(size)
    pipeline = config["test_dataloader"]["dataset"]["pipeline"]
    scales = [step["scale"] for step in pipeline if step["type"] == "Resize" and "scale" in step]
    if not scales:
        raise ConfigError(
            "the configuration names no test size; expected model.data_preprocessor.size, or a "
            "Resize with a scale in test_dataloader.dataset.pipeline"
        )
    width, height = scales[-1]
    return height, width

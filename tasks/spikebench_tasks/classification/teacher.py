"""Teachers that a distillation head learns from: models of timm, or registered backbones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import timm
from timm.layers import to_2tuple
from torch import nn

from spikebench.backbones import build_classifier
from spikebench.task import ConfigError
from spikebench.weights.loading import head_arguments, in_our_layout, load_weights, read_weights

_KEYS = {"timm", "backbone", "time_steps", "arguments", "init_cfg"}


def build_teacher(described: Mapping[str, Any], num_classes: int) -> nn.Module:
    """Build a teacher, with weights that no longer change.

    Args:
        described: `timm`, the name of a model there, or `backbone`, a registered one, with
            `time_steps` and `arguments`; and `init_cfg`, whose `checkpoint` is a file of weights.
            Without a file, timm downloads the weights of the name.
        num_classes: of the student, whose labels the teacher must give.

    Raises:
        ConfigError: the description is wrong, weights cannot be had, or they are of other classes.
        WeightsError: the file cannot be read, or does not fit.
    """
    if len({"timm", "backbone"} & described.keys()) != 1 or not described.keys() <= _KEYS:
        raise ConfigError(
            f"model.teacher={dict(described)}; expected either timm or backbone, and besides only "
            "time_steps, arguments and init_cfg"
        )
    path = (described.get("init_cfg") or {}).get("checkpoint")
    arguments = dict(described.get("arguments") or {})
    teacher: nn.Module
    classes: int | None
    if "timm" in described:
        teacher, classes = _of_timm(described["timm"], num_classes, path, arguments)
    elif path is None:
        raise ConfigError(
            f"model.teacher={dict(described)} has no weights; name their file as "
            "init_cfg=dict(checkpoint=PATH)"
        )
    else:
        heads = head_arguments(path)
        classes = heads.get("num_classes")
        teacher = build_classifier(
            described["backbone"],
            num_classes,
            described.get("time_steps", 1),
            heads.get("distillation", False),
            **arguments,
        )
    if classes != num_classes:
        name = described.get("timm") or described["backbone"]
        raise ConfigError(
            f"model.teacher {name} knows {classes or 'no'} classes and the data set has "
            f"{num_classes}; a teacher must give the labels of the data set"
        )
    if path is not None:
        load_weights(teacher, path)
    return teacher.eval().requires_grad_(False)


def _of_timm(
    name: str, num_classes: int, path: str | None, arguments: Mapping[str, Any]
) -> tuple[nn.Module, int]:
    given = dict(arguments) if path is None else {"num_classes": num_classes, **arguments}
    try:
        teacher = timm.create_model(name, pretrained=path is None, **given)
    except Exception as error:  # of the hub, the network or the registry
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"model.teacher: timm's {name!r} cannot be had: {reason[:200]}; name a file of its "
            "weights as init_cfg=dict(checkpoint=PATH)"
        ) from error
    classes = cast(int, teacher.num_classes)
    if path is not None:
        last = to_2tuple(cast(dict, teacher.pretrained_cfg)["classifier"])
        for key, weight in in_our_layout(read_weights(path)).items():
            if key in [f"{layer}.weight" for layer in last]:
                classes = len(weight)  # not those asked for
    return teacher, classes

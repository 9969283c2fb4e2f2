"""Teachers that a distillation head learns from: models of timm, or registered backbones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import nn

from spikebench.backbones import build_classifier
from spikebench.task import ConfigError
from spikebench.weights.loading import head_arguments, in_our_layout, load_weights, read_weights
from spikebench_tasks.classification.options import TeacherConfig, typed


def build_teacher(config: TeacherConfig | Mapping[str, Any], num_classes: int) -> nn.Module:
    """Build a teacher, with weights that no longer change.

    Args:
        config: the teacher; a dictionary of its fields, too.
        num_classes: of the student, whose labels the teacher must give.

    Raises:
        UnknownNameError: `config` has an unknown key.
        ConfigError: `config` is wrong, weights cannot be had, or they are of other classes.
        WeightsError: the file cannot be read, or does not fit.
    """
    config = typed(TeacherConfig, config, "model.teacher")
    if (config.timm is None) == (config.backbone is None):
        raise ConfigError(
            f"model.teacher: timm={config.timm!r} and backbone={config.backbone!r}; expected "
            "exactly one of them"
        )
    path = (config.init_cfg or {}).get("checkpoint")
    teacher: nn.Module
    classes: int | None
    if config.timm is not None:
        if config.time_steps is not None:
            raise ConfigError(
                f"model.teacher: time_steps={config.time_steps} and timm={config.timm!r}, which "
                "has no time steps; leave one out"
            )
        teacher, classes = _of_timm(config.timm, num_classes, path, config.arguments)
    elif path is None:
        raise ConfigError(
            f"model.teacher {config.backbone!r} has no weights; name their file as "
            "init_cfg=dict(checkpoint=PATH)"
        )
    else:
        heads = head_arguments(path)
        classes = heads.get("num_classes")
        teacher = build_classifier(
            cast(str, config.backbone),
            num_classes,
            config.time_steps or 1,
            heads.get("distillation", False),
            **config.arguments,
        )
    if classes != num_classes:
        raise ConfigError(
            f"model.teacher {config.timm or config.backbone} knows {classes or 'no'} classes and "
            f"the data set has {num_classes}; a teacher must give the labels of the data set"
        )
    if path is not None:
        load_weights(teacher, path)
    return teacher.eval().requires_grad_(False)


def _of_timm(
    name: str, num_classes: int, path: str | None, arguments: Mapping[str, Any]
) -> tuple[nn.Module, int]:
    import timm
    from timm.layers import to_2tuple

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

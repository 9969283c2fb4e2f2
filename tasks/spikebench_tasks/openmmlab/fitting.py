"""Fitting neck and heads to a spiking backbone.

A configuration says `backbone=dict(type='SpikingBackbone', name=...)` and leaves out what follows
from the backbone: the channels that neck and heads read, the strides of anchors, RoI features and
decode heads, and T where it is kept. `fit_to_backbone` fills these in from `feature_info`, so that
no number typed into a configuration can disagree with the backbone. What a configuration does say,
stays.

What a part needs is asked of its class: by a classmethod `fit_config(config, maps)` if it has one,
else by what its constructor takes.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mmengine.config import ConfigDict
from mmengine.registry import MODELS, TASK_UTILS, Registry

from spikebench.task import ConfigError
from spikebench_tasks.openmmlab.adapter import SpikingBackbone, doubling

_READ_MAPS = {
    "neck",
    "rpn_head",
    "bbox_head",
    "bbox_roi_extractor",
    "mask_head",
    "mask_roi_extractor",
    "decode_head",
    "auxiliary_head",
}
"""The arguments of detectors and segmentors whose parts read maps, so that time matters to them."""


class Maps(NamedTuple):
    """What neck and heads read.

    Attributes:
        time_steps: T if maps keep time, else 1.
        strides: of the backbone's maps that the neck reads, fine to coarse.
        level_strides: of the levels that heads read: the maps, or what the neck makes of them.
        level_channels: of these levels; empty if the neck does not say.
    """

    time_steps: int
    strides: list[int]
    level_strides: list[int]
    level_channels: list[int]


def fit_to_backbone(
    backbone: Mapping[str, Any], neck: Mapping[str, Any] | None, heads: Mapping[str, Any]
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Fill what follows from the backbone into the configurations of its neck and heads.

    Args:
        backbone: configuration of a `SpikingBackbone`.
        neck: configuration of a pyramid; gets `in_channels`, and `num_outs` (one level per map).
            None if heads read the backbone's maps.
        heads: all other parts of the model; anchors, RoI extractors and decode heads get strides,
            decode heads channels, and spiking parts T. Anchors of a level are at least twice as
            large as those of the one before, even if its stride is not.

    Returns:
        The filled neck and heads; the arguments are left as they are.

    Raises:
        ConfigError: the backbone is another, or time is kept and a part cannot read it.
    """
    built = MODELS.build(dict(backbone))
    if not isinstance(built, SpikingBackbone):
        raise ConfigError(
            f"backbone.type={backbone['type']!r} in a model for spiking ones; expected "
            "'SpikingBackbone', or a stock model type around it"
        )
    channels = [one.channels for one in built.feature_info]
    strides = [one.stride for one in built.feature_info]
    levels = strides
    if neck is not None:
        neck = {"in_channels": channels, **neck}
        strides = strides[_maps_read(neck)]
        neck.setdefault("num_outs", len(strides))
        levels = list(strides)
        while len(levels) < neck["num_outs"]:
            levels.append(2 * levels[-1])
        channels = [neck["out_channels"]] * len(levels) if "out_channels" in neck else []
    maps = Maps(built.time_steps if built.keep_time else 1, strides, levels, channels)
    return (None if neck is None else _fitted(neck, "neck", maps)), _fitted(heads, "heads", maps)


def _fitted(node: Any, part: str, maps: Maps) -> Any:
    """A copy of a configuration in which every part, at any depth, is fitted."""
    if isinstance(node, list | tuple):
        return type(node)(_fitted(one, part, maps) for one in node)
    if not isinstance(node, Mapping):
        return node
    config = ConfigDict({key: _fitted(value, key, maps) for key, value in node.items()})
    kind = _find_class(config.get("type"))
    if kind is None:
        return config
    config = getattr(kind, "fit_config", fit_by_arguments(kind))(config, maps)
    if part in _READ_MAPS and maps.time_steps > 1 and "time_steps" not in config:
        raise ConfigError(
            f"{part}.type={kind.__name__!r} reads maps without time, and backbone.keep_time is "
            f"set; expected a spiking one, such as {_spiking_form(kind)}, or keep_time=False"
        )
    return config


def fit_by_arguments(kind: type) -> Any:
    """Return the function that fits the configuration of a class by what its constructor takes.

    `time_steps`, and what it requires of `strides`, `featmap_strides` and `feature_strides`, are
    filled in; anchors get `base_sizes`, heads that select maps by `in_index` their channels.
    """
    takes = _constructor_arguments(kind)
    required = {name for name, one in takes.items() if one.default is one.empty}

    def fit(config: dict[str, Any], maps: Maps) -> dict[str, Any]:
        if "time_steps" in takes:
            config.setdefault("time_steps", maps.time_steps)
        if {"strides", "base_sizes"} <= takes.keys() and not {"strides", "centers"} & set(config):
            config.setdefault("base_sizes", doubling(maps.level_strides))
        for name in {"strides", "feature_strides"} & required:
            config.setdefault(name, maps.level_strides)
        if "featmap_strides" in required:
            config.setdefault("featmap_strides", maps.strides)
        if {"in_index", "in_channels"} <= takes.keys():
            if _reads_every_level(kind):
                config.setdefault("in_index", list(range(len(maps.level_strides))))
                config.setdefault("in_channels", maps.level_channels)
            elif maps.level_channels and isinstance(index := config.get("in_index", -1), int):
                config.setdefault("in_channels", maps.level_channels[index])
        return config

    return fit


def _constructor_arguments(kind: type) -> dict[str, inspect.Parameter]:
    """What a constructor takes, through the `**options` that it hands on to its bases'."""
    found: dict[str, inspect.Parameter] = {}
    for base in kind.__mro__:
        own = vars(base).get("__init__")
        if own is None or base is object:
            continue
        parameters = inspect.signature(own).parameters
        found = {**parameters, **found}
        if not any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
            break
    return found


def _reads_every_level(kind: type) -> bool:
    """Whether a decode head reads all levels; by a default that no signature shows.

    MMSegmentation's heads set `input_transform="multiple_select"` inside their constructors.
    """
    return any(base.__name__ in ("FPNHead", "UPerHead") for base in kind.__mro__)


def _find_class(name: Any) -> type | None:
    """The class of a `type`: in the default scope, else in whichever package has it."""
    if not isinstance(name, str):
        return name if isinstance(name, type) else None
    for registry in (MODELS, TASK_UTILS):
        with registry.switch_scope_and_registry(None) as scoped:
            places: list[Registry] = [scoped, *registry.children.values()]
        for place in places:
            if isinstance(kind := place.get(name), type):
                return kind
    return None


def _spiking_form(kind: type) -> str:
    """The registered parts of spikes that take the place of a stock one."""
    registries = (MODELS, *MODELS.children.values())
    forms: Iterator[type] = (
        one
        for registry in registries
        for one in registry.module_dict.values()
        if isinstance(one, type) and issubclass(one, kind)
        if "time_steps" in _constructor_arguments(one)
    )
    return " or ".join(sorted({repr(one.__name__) for one in forms})) or "one of your own"


def _maps_read(neck: Mapping[str, Any]) -> slice:
    """Which of the backbone's maps a pyramid reads."""
    first, last = neck.get("start_level", 0), neck.get("end_level", -1)
    if last < 0:
        return slice(first, None)
    kind = _find_class(neck["type"])
    # in MMSegmentation, unlike in MMDetection, `end_level` is the first that is not read
    excluded = any(base.__module__.startswith("mmseg.") for base in getattr(kind, "__mro__", ()))
    return slice(first, last if excluded else last + 1)

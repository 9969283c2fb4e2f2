"""The typed options of classification, and how plain data of a configuration become them."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from spikebench.registry import unknown_name
from spikebench.task import ConfigError

Options = TypeVar("Options")


@dataclass(frozen=True)
class OptimizerConfig:
    """An optimiser of timm; 1-D parameters are not decayed.

    The defaults hold for every optimiser: sgd, too, has a weight decay of 0.05 unless one is given.

    Attributes:
        opt: its name in timm: adamw, sgd, lamb, ...
        lr: peak learning rate.
        weight_decay: of all other parameters.
        layer_decay: factor of the learning rate from one layer to the one below it; None is 1.
        momentum: of optimisers that have one (sgd); None is 0.9.
        options: further arguments of that optimiser, such as `trust_clip` of lamb.
    """

    opt: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.05
    layer_decay: float | None = None
    momentum: float | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MixupConfig:
    """Mixup and CutMix of a batch, as timm's `Mixup` does them.

    Attributes:
        mixup_alpha: parameter of mixup's beta distribution; 0 is no mixup.
        cutmix_alpha: parameter of CutMix's; 0 is no CutMix. Not for event frames.
        cutmix_minmax: least and greatest side of the part cut out, as shares; instead of
            `cutmix_alpha`.
        prob: probability that a batch or element is mixed.
        switch_prob: probability of CutMix where there is mixup as well.
        mode: what is mixed alike: "batch", "pair" or "elem".
        correct_lam: whether labels are mixed by the area cut out, not by what was drawn.
    """

    mixup_alpha: float = 1.0
    cutmix_alpha: float = 0.0
    cutmix_minmax: tuple[float, float] | None = None
    prob: float = 1.0
    switch_prob: float = 0.5
    mode: str = "batch"
    correct_lam: bool = True


@dataclass(frozen=True)
class EventMixConfig:
    """Mixing of event frames; see `EventMix`.

    Attributes:
        alpha: both parameters of the beta distribution.
        prob: probability that a batch is mixed.
        components: number of Gaussians.
    """

    alpha: float = 1.0
    prob: float = 0.5
    components: int = 3


@dataclass(frozen=True)
class TeacherConfig:
    """What a distillation head learns from; either `timm` or `backbone` is given.

    Attributes:
        timm: name of a model in timm, which downloads its weights unless there is a file.
        backbone: name of a registered backbone.
        time_steps: T of a registered backbone; None is 1.
        arguments: further arguments of the model.
        init_cfg: `checkpoint` names the file of weights.
    """

    timm: str | None = None
    backbone: str | None = None
    time_steps: int | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    init_cfg: dict[str, str] | None = None


@dataclass(frozen=True)
class Augmentation:
    """What happens to training images besides cropping, as timm's `create_transform` does it.

    Attributes:
        auto_augment: a policy, such as "rand-m9-mstd0.5-inc1".
        color_jitter: strength; None is none. A policy takes its place.
        hflip: probability of a horizontal flip.
        vflip: probability of a vertical flip.
        re_prob: probability of random erasing.
        re_mode: what erases: "const", "rand" or "pixel".
        re_count: number of erased parts.
    """

    auto_augment: str | None = None
    color_jitter: float | None = None
    hflip: float = 0.5
    vflip: float = 0.0
    re_prob: float = 0.0
    re_mode: str = "const"
    re_count: int = 1


@dataclass(frozen=True)
class CropAugmentation(Augmentation):
    """Augmentation of images from which parts of random size are cropped.

    Attributes:
        scale: least and greatest share of an image's area.
        ratio: least and greatest aspect ratio.
    """

    color_jitter: float | None = 0.4
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)


@dataclass(frozen=True)
class EventAugmentation:
    """What happens to the frames of a training recording, to all time steps alike.

    Attributes:
        roll: moves frames by up to this many pixels in each direction.
        flip: probability of a horizontal flip.
        cutout: probability that a part is erased.
    """

    roll: int = 0
    flip: float = 0.0
    cutout: float = 0.0


def typed(kind: type[Options], given: Options | Mapping[str, Any], key: str) -> Options:
    """Return options as the dataclass that they are of.

    Args:
        kind: one of the classes above.
        given: an instance, or a dictionary of its fields, as configuration files have them.
        key: where it stands in a configuration, for messages.

    Raises:
        UnknownNameError: it has no such field.
        ConfigError: a value is of another type, or `given` is of another class; a subclass has
            fields that would be ignored.
    """
    if type(given) is kind:
        return given
    if not isinstance(given, Mapping):
        raise ConfigError(f"{key} is {given!r}; expected keys and values of {kind.__name__}")
    require_known(given, [each.name for each in fields(kind)], key)  # type: ignore[arg-type]
    try:
        return TypeAdapter(kind).validate_python(dict(given))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, (key, *first["loc"])))
        raise ConfigError(f"{place} is {first['input']!r}; {first['msg'].lower()}") from error


def require_known(given: Iterable[str], known: Iterable[str], key: str) -> None:
    """Look whether all names are known.

    Raises:
        UnknownNameError: one is not; the message suggests near ones.
    """
    known = list(known)
    for name in given:
        if name not in known:
            raise unknown_name(f"key of {key}", name, known)


def accepted_arguments(kind: type) -> list[str]:
    """Return the names that a class can be constructed with, through `**options` of subclasses."""
    names: list[str] = []
    for base in kind.__mro__:
        if "__init__" not in vars(base):
            continue
        _, *parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
        names += [one.name for one in parameters if one.kind is not one.VAR_KEYWORD]
        if all(one.kind is not one.VAR_KEYWORD for one in parameters):
            break
    return names


def plain(value: Any) -> Any:
    """Return options as plain data, which `torch.load(weights_only=True)` reads again."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return dict(value) if isinstance(value, Mapping) else value

"""One adapter: every registered backbone in MMDetection and MMSegmentation."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor

from spikebench.backbones import FeatureInfo, build_backbone
from spikebench.task import ConfigError
from spikebench.weights.loading import in_our_layout, load_weights, read_weights

log = logging.getLogger("spikebench")


@MODELS.register_module()
class SpikingBackbone(BaseModule):
    """A registered backbone, its maps averaged over time before the neck or with time kept.

    Args:
        name: as in `spikebench.list_backbones()`.
        time_steps: T.
        out_indices: which of the backbone's maps to give; None gives all of `min_stride` or more.
        min_stride: finer maps are left out where `out_indices` is None.
        one_per_stride: whether only the deepest of several maps with the same stride is given, if
            `out_indices` is None.
        keep_time: whether neck and heads, which must then be spiking, run for all T time steps;
            otherwise they run once, on the mean over time.
        published_strides: whether each map counts as half as fine as the one before, as in the
            published detectors, which treat Meta-SpikeFormer's last map, at stride 16, as one at
            stride 32. Needed only to load their weights.
        arguments: further arguments of the backbone.
        init_cfg: None, or `dict(type='Pretrained', checkpoint=PATH)`: weights of this backbone or
            of a classifier with it, as `load_weights` takes them.
    """

    def __init__(
        self,
        name: str,
        time_steps: int = 1,
        out_indices: Sequence[int] | None = None,
        min_stride: int = 1,
        one_per_stride: bool = False,
        keep_time: bool = False,
        published_strides: bool = False,
        arguments: dict[str, Any] | None = None,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        if init_cfg is not None and (
            set(init_cfg) != {"type", "checkpoint"} or init_cfg["type"] != "Pretrained"
        ):
            raise ConfigError(
                f"backbone.init_cfg={dict(init_cfg)}; expected None or "
                "dict(type='Pretrained', checkpoint=PATH)"
            )
        super().__init__(init_cfg)
        self.model = build_backbone(name, time_steps=time_steps, **(arguments or {}))
        self.time_steps = time_steps
        self.keep_time = keep_time
        info: list[FeatureInfo] = list(self.model.feature_info)  # type: ignore[arg-type]
        if out_indices is None:
            coarse = [i for i, one in enumerate(info) if one.stride >= min_stride]
            deepest = {info[i].stride: i for i in coarse}
            out_indices = sorted(deepest.values()) if one_per_stride else coarse
        if not out_indices or not all(0 <= i < len(info) for i in out_indices):
            raise ConfigError(
                f"backbone {name!r} has maps 0 to {len(info) - 1} at strides "
                f"{[one.stride for one in info]}; out_indices={out_indices}, "
                f"min_stride={min_stride} chooses none or one that is not there"
            )
        self.out_indices = tuple(out_indices)
        chosen = [info[i] for i in self.out_indices]
        if published_strides:
            strides = doubling([one.stride for one in chosen])
            chosen = [
                one._replace(stride=stride) for one, stride in zip(chosen, strides, strict=True)
            ]
        self.feature_info: list[FeatureInfo] = chosen

    def init_weights(self) -> None:
        """Load the weights that `init_cfg` names; without it keep those of the building.

        Raises:
            WeightsError: they cannot be read, or some do not fit.
        """
        if self.init_cfg is None:
            return
        path = self.init_cfg["checkpoint"]
        load_weights(self.model, path)
        own, given = list(self.model.state_dict()), in_our_layout(read_weights(path))
        prefixes = {key.removesuffix(own[0]) for key in given if key.endswith(own[0])}
        fits = (prefix for prefix in prefixes if all(prefix + key in given for key in own))
        prefix = min(fits, key=len)
        others = given.keys() - {prefix + key for key in own}
        line = (
            f"{path}: {len(own)} tensors loaded into the backbone; not of it, and left out: "
            f"{', '.join(sorted(others)) or 'none'}"
        )
        log.info(line)
        print_log(line, logger="current")  # the log of the stock tools

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images `(B, C, H, W)` to the chosen maps, in channels-last memory layout.

        Convolutions of a CPU are faster in it, and neck and heads keep the layout.

        Returns:
            Maps `(B, C_i, H_i, W_i)`, the mean over time; or `(T * B, C_i, H_i, W_i)`, time first,
            where time is kept.
        """
        maps = self.model(x.contiguous(memory_format=torch.channels_last))
        chosen = [maps[i] for i in self.out_indices]
        merged = [
            # the mean of a single one would be a copy, in the other layout
            one.flatten(0, 1) if self.keep_time or len(one) == 1 else one.mean(0)
            for one in chosen
        ]
        return tuple(one.contiguous(memory_format=torch.channels_last) for one in merged)


def doubling(strides: Sequence[int]) -> list[int]:
    """Strides as they would be if each were at least twice the one before.

    Example:
        >>> doubling([4, 8, 16, 16])
        [4, 8, 16, 32]
    """
    doubled = list(strides[:1])
    for stride in strides[1:]:
        doubled.append(max(stride, 2 * doubled[-1]))
    return doubled

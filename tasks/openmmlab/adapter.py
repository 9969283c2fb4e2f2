"""One adapter: every registered backbone in MMDetection and MMSegmentation.

A configuration says `backbone=dict(type='SpikingBackbone', name=...)` and leaves out what follows
from the backbone: the channels its neck reads, and the strides of anchors, RoI features and decode
heads. `fit_to_backbone` fills these in from `feature_info`, so that no number typed into a
configuration can disagree with the backbone. What a configuration does say, stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.config import ConfigDict
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor

from benchmark.backbones import FeatureInfo, build_backbone

_STRIDES_OF = {
    "AnchorGenerator": "strides",
    "MlvlPointGenerator": "strides",
    "SingleRoIExtractor": "featmap_strides",
    "GenericRoIExtractor": "featmap_strides",
    "FPNHead": "feature_strides",
}
_READS_EVERY_MAP = {"FPNHead"}


@MODELS.register_module()
class SpikingBackbone(BaseModule):
    """A registered backbone whose maps are averaged over time before the neck.

    Args:
        name: as in `benchmark.list_backbones()`.
        time_steps: T.
        out_indices: which of the backbone's maps to give; None gives all of `min_stride` or more.
        min_stride: finer maps are left out where `out_indices` is None.
        one_per_stride: whether, where `out_indices` is None, of maps with one stride only the
            deepest is given.
        arguments: further arguments of the backbone.
        init_cfg: only None; weights are loaded with `load_from` or by the runner.
    """

    def __init__(
        self,
        name: str,
        time_steps: int = 1,
        out_indices: Sequence[int] | None = None,
        min_stride: int = 1,
        one_per_stride: bool = False,
        arguments: dict[str, Any] | None = None,
        init_cfg: None = None,
    ) -> None:
        if init_cfg is not None:
            raise ValueError(f"init_cfg={init_cfg!r}; load weights with load_from instead")
        super().__init__()
        self.model = build_backbone(name, time_steps=time_steps, **(arguments or {}))
        self.time_steps = time_steps
        info: list[FeatureInfo] = list(self.model.feature_info)  # type: ignore[arg-type]
        if out_indices is None:
            coarse = [i for i, one in enumerate(info) if one.stride >= min_stride]
            deepest = {info[i].stride: i for i in coarse}
            out_indices = sorted(deepest.values()) if one_per_stride else coarse
        if not out_indices or not all(0 <= i < len(info) for i in out_indices):
            raise ValueError(
                f"backbone {name!r} has maps 0 to {len(info) - 1} at strides "
                f"{[one.stride for one in info]}; out_indices={out_indices}, "
                f"min_stride={min_stride} chooses none or one that is not there"
            )
        self.out_indices = tuple(out_indices)
        self.feature_info: list[FeatureInfo] = [info[i] for i in self.out_indices]

    def init_weights(self) -> None:
        """Keep the weights the backbone was built with."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images `(B, C, H, W)` to the chosen maps, each `(B, C_i, H_i, W_i)`, mean over time."""
        maps = self.model(x)
        return tuple(maps[i].mean(0) for i in self.out_indices)


def fit_to_backbone(
    backbone: dict[str, Any], neck: dict[str, Any], heads: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fill what follows from the backbone into the configurations of its neck and heads.

    Args:
        backbone: configuration of a `SpikingBackbone`.
        neck: configuration of a pyramid; gets `in_channels`, and `num_outs` (one level a map).
        heads: all other parts of the model; anchors, RoI extractors and decode heads get strides.

    Returns:
        The filled neck and heads; the arguments are left as they are.
    """
    info = MODELS.build(dict(backbone)).feature_info
    neck = {**neck}
    neck.setdefault("in_channels", [one.channels for one in info])
    first, last = neck.get("start_level", 0), neck.get("end_level", -1)
    strides = [one.stride for one in info][first : last + 1 if last >= 0 else None]
    neck.setdefault("num_outs", len(strides))
    levels = list(strides)
    while len(levels) < neck["num_outs"]:
        levels.append(2 * levels[-1])

    def fill(node: Any) -> Any:
        if isinstance(node, dict):
            node = ConfigDict({key: fill(value) for key, value in node.items()})
            kind = str(node.get("type", "")).split(".")[-1]
            if kind in _STRIDES_OF:
                of_maps = strides if kind.endswith("RoIExtractor") else levels
                node.setdefault(_STRIDES_OF[kind], of_maps)
            if kind in _READS_EVERY_MAP:
                node.setdefault("in_index", list(range(len(levels))))
                node.setdefault("in_channels", [neck["out_channels"]] * len(levels))
            return node
        if isinstance(node, list | tuple):
            return type(node)(fill(one) for one in node)
        return node

    return neck, fill(heads)

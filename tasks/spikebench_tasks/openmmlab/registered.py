"""Importing this makes MMDetection and MMSegmentation usable and knows spiking backbones there."""

import _spikebench_mmcv

_spikebench_mmcv.install()

from spikebench_tasks.openmmlab import (  # noqa: E402
    adapter,
    checkpoints,
    firing_maps,
    pictures,
    spiking,
    transforms,
)

__all__ = [
    "adapter",
    "checkpoints",
    "firing_maps",
    "pictures",
    "spiking",
    "transforms",
]

"""Importing this makes MMDetection and MMSegmentation usable and knows spiking backbones there."""

from spikebench_tasks.openmmlab.extension import install_ops

install_ops()

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
    "install_ops",
    "pictures",
    "spiking",
    "transforms",
]

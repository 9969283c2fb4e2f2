"""Importing this makes MMDetection and MMSegmentation usable and knows spiking backbones there."""

from tasks.openmmlab.extension import install_ops

install_ops()

from tasks.openmmlab import adapter, checkpoints, firing_maps, pictures, spiking  # noqa: E402

__all__ = ["adapter", "checkpoints", "firing_maps", "install_ops", "pictures", "spiking"]

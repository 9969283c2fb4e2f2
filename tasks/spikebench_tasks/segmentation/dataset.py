"""The data set of the segmentation task that is made here; others are MMSegmentation's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.registry import DATASETS
from mmseg.datasets import BaseSegDataset

from spikebench.files import data_root
from spikebench_tasks.datasets.digit_scenes import NAME, ensure_digit_scenes
from spikebench_tasks.datasets.digits import CLASSES, Split


@DATASETS.register_module()
class DigitScenesSegmentation(BaseSegDataset):
    """Scenes of handwritten digits with label maps, made on first use; class 0 is background.

    Args:
        split: "train" or "test".
        root: the data root; None takes the default of `spikebench.files.data_root`.
        **options: those of `BaseSegDataset`, except the locations of files.
    """

    METAINFO = {
        "name": NAME,
        "classes": ("background", *CLASSES),
        "palette": [[23 * k % 256, 91 * k % 256, 157 * k % 256] for k in range(len(CLASSES) + 1)],
    }

    def __init__(self, split: Split, root: str | Path | None = None, **options: Any) -> None:
        self.split = split
        folder = ensure_digit_scenes(data_root(root))
        super().__init__(
            img_suffix=".png",
            seg_map_suffix=".png",
            data_prefix={
                "img_path": str(folder / "images" / split),
                "seg_map_path": str(folder / "labels" / split),
            },
            reduce_zero_label=False,
            **options,
        )

"""The data set of the detection task that is made here; others are MMDetection's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmdet.datasets import CocoDataset
from mmengine.registry import DATASETS

from spikebench.files import data_root
from spikebench_tasks.datasets.digit_scenes import NAME, ensure_digit_scenes
from spikebench_tasks.datasets.digits import CLASSES, Split


@DATASETS.register_module()
class DigitScenesDetection(CocoDataset):
    """Scenes of handwritten digits with boxes and masks, made on first use.

    The metric finds the annotations in the metainfo.

    Args:
        split: "train" or "test".
        root: the data root; None takes the default of `spikebench.files.data_root`.
        **options: those of `CocoDataset`, except the locations of files.
    """

    METAINFO = {"name": NAME, "classes": CLASSES, "palette": None}

    def __init__(self, split: Split, root: str | Path | None = None, **options: Any) -> None:
        self.split = split
        folder = ensure_digit_scenes(data_root(root))
        annotations = str(folder / "annotations" / f"instances_{split}.json")
        super().__init__(
            ann_file=annotations,
            data_prefix={"img": str(folder / "images" / split)},
            # MMEngine would read a string as the name of a file of class names
            metainfo={"ann_file": (annotations,)},
            **options,
        )

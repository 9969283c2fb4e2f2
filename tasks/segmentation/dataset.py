"""Data sets of the segmentation task, found below the data root."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from mmengine.registry import DATASETS
from mmseg.datasets import ADE20KDataset, BaseSegDataset, PascalVOCDataset
from PIL import Image

from tasks.datasets import DatasetError, data_root
from tasks.datasets.digit_scenes import NAME, ensure_digit_scenes
from tasks.datasets.digits import CLASSES, Split
from tasks.datasets.published import ADE20K, VOC2012, Published, evenly_spread

_IGNORED = 255
_LOOKED_AT = 8


@DATASETS.register_module()
class DigitScenesSegmentation(BaseSegDataset):
    """Scenes of handwritten digits with label maps, made on first use; class 0 is background.

    Args:
        split: "train" or "test".
        **options: those of `BaseSegDataset`, less where the files are.
    """

    METAINFO = {
        "name": NAME,
        "classes": ("background", *CLASSES),
        "palette": [[23 * k % 256, 91 * k % 256, 157 * k % 256] for k in range(len(CLASSES) + 1)],
    }

    def __init__(self, split: Split, **options: Any) -> None:
        self.split = split
        folder = ensure_digit_scenes(data_root())
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


@DATASETS.register_module()
class ADE20KSegmentation(ADE20KDataset):
    """ADE20K with the 150 classes of SceneParse150, from `ade20k` below the data root.

    Args:
        split: "training" or "validation".
        **options: those of `ADE20KDataset`, less where the files are.

    Raises:
        MissingDataError: the images or the label maps are not there.
        DatasetError: the label maps are of other classes.
    """

    METAINFO = {**ADE20KDataset.METAINFO, "name": "ade20k"}

    def __init__(self, split: Literal["training", "validation"], **options: Any) -> None:
        self.split = split
        images, labels = (ADE20K.folder / kind / split for kind in ("images", "annotations"))
        ADE20K.require(images, labels)
        # 0 is what belongs to no class
        _check_labels(ADE20K, labels, highest=len(self.METAINFO["classes"]))
        prefix = {"img_path": str(images), "seg_map_path": str(labels)}
        super().__init__(data_prefix=prefix, **options)


@DATASETS.register_module()
class VOC2012Segmentation(PascalVOCDataset):
    """Pascal VOC 2012 with 20 classes and background, from `VOCdevkit` below the data root.

    Args:
        split: "train", "val" or another list in `ImageSets/Segmentation`.
        **options: those of `PascalVOCDataset`, less where the files are.

    Raises:
        MissingDataError: the list, the images or the label maps are not there.
        DatasetError: the label maps are of other classes.
    """

    METAINFO = {**PascalVOCDataset.METAINFO, "name": "voc2012"}

    def __init__(self, split: str, **options: Any) -> None:
        self.split = split
        listed = VOC2012.folder / "ImageSets" / "Segmentation" / f"{split}.txt"
        images, labels = VOC2012.folder / "JPEGImages", VOC2012.folder / "SegmentationClass"
        VOC2012.require(listed, images, labels)
        _check_labels(VOC2012, labels, highest=len(self.METAINFO["classes"]) - 1)
        prefix = {"img_path": str(images), "seg_map_path": str(labels)}
        super().__init__(ann_file=str(listed), data_prefix=prefix, **options)


def _check_labels(source: Published, folder: Path, highest: int) -> None:
    """Look at some label maps: a label that no class has would silently be left out of scores."""
    paths: Sequence[Path] = sorted(folder.glob("*.png"))
    for index in evenly_spread(len(paths), _LOOKED_AT):
        with Image.open(paths[index]) as opened:
            labels = np.unique(np.asarray(opened))
        above = [int(label) for label in labels if label > highest and label != _IGNORED]
        if above:
            raise DatasetError(
                f"{paths[index]} holds label {above[0]}; expected 0 to {highest} of "
                f"{source.title}, or {_IGNORED}; {source.remedy}"
            )

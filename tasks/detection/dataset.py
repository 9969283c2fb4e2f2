"""Data sets of the detection task, found below the data root."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from mmdet.datasets import CocoDataset
from mmengine.registry import DATASETS

from tasks.datasets import DatasetError, data_root
from tasks.datasets.digit_scenes import NAME, ensure_digit_scenes
from tasks.datasets.digits import CLASSES, Split
from tasks.datasets.published import COCO


class _CocoFiles(CocoDataset):
    """Images with annotations in COCO's format, which the metric finds in the metainfo."""

    def __init__(self, split: str, annotations: Path, images: Path, **options: Any) -> None:
        self.split = split
        super().__init__(
            ann_file=str(annotations),
            data_prefix={"img": str(images)},
            # MMEngine would read a string as the name of a file of class names
            metainfo={"ann_file": (str(annotations),)},
            **options,
        )


@DATASETS.register_module()
class DigitScenesDetection(_CocoFiles):
    """Scenes of handwritten digits with boxes and masks, made on first use.

    Args:
        split: "train" or "test".
        **options: those of `CocoDataset`, less where the files are.
    """

    METAINFO = {"name": NAME, "classes": CLASSES, "palette": None}

    def __init__(self, split: Split, **options: Any) -> None:
        folder = ensure_digit_scenes(data_root())
        annotations = folder / "annotations" / f"instances_{split}.json"
        super().__init__(split, annotations, folder / "images" / split, **options)


@DATASETS.register_module()
class Coco2017Detection(_CocoFiles):
    """COCO 2017 with boxes and masks, from `coco` below the data root.

    Args:
        split: "train2017" or "val2017".
        **options: those of `CocoDataset`, less where the files are.

    Raises:
        MissingDataError: the annotations or the images are not there.
        DatasetError: the annotations are of other classes than COCO's 80.
    """

    METAINFO = {**CocoDataset.METAINFO, "name": "coco2017"}

    def __init__(self, split: Literal["train2017", "val2017"], **options: Any) -> None:
        annotations = COCO.folder / "annotations" / f"instances_{split}.json"
        images = COCO.folder / split
        COCO.require(annotations, images)
        super().__init__(split, annotations, images, **options)

    def load_data_list(self) -> list[dict]:
        """Read the annotations, and see whether they are of the classes that the model has."""
        listed = super().load_data_list()
        classes = self.metainfo["classes"]
        if len(self.cat_ids) != len(classes):
            raise DatasetError(
                f"{self.ann_file} has {len(self.cat_ids)} of the {len(classes)} classes of "
                f"{COCO.title}; {COCO.remedy}"
            )
        return listed

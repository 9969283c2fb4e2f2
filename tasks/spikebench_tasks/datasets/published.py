"""Published data sets of detection and segmentation: where each lies and where to get it.

Those of classification stand in `spikebench_tasks.classification.datasets`, one file each.

- `coco/annotations/instances_{train,val}2017.json`, `coco/{train,val}2017/*.jpg`
- `ade20k/{images,annotations}/{training,validation}/*.{jpg,png}`
- `VOCdevkit/VOC2012/{JPEGImages,SegmentationClass,ImageSets/Segmentation}`
- `cityscapes/{leftImg8bit,gtFine}/{train,val}/<city>/*.png`
- `bccd/annotations/instances_{train,val,test}.json`, `bccd/images/*.jpg`
- `nuclei200/annotations/instances_{train,val}.json`, `nuclei200/images/{train,val}/*.png`,
  `nuclei200/semantic/{train,val}/*.png`
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from spikebench.task import MissingDataError


class Published(NamedTuple):
    """A published data set.

    Attributes:
        title: what people call it.
        location: its folder below the data root.
        instruction: where to get it, and what to make of it below the data root.
    """

    title: str
    location: str
    instruction: str

    def folder(self, data_root: Path) -> Path:
        """Return its folder below a data root."""
        return data_root / self.location

    @property
    def remedy(self) -> str:
        """What to do where it is missing or not what it should be."""
        return f"{self.instruction} below the data root (--data-root or $SPIKEBENCH_DATA)"

    def require(self, *paths: Path) -> None:
        """Look whether files are there, and whether folders are and hold something.

        Raises:
            MissingDataError: one is not, or does not.
        """
        for path in paths:
            found = missing(path)
            if found is not None:
                raise MissingDataError(
                    f"{self.title} is missing: {path.absolute()} is {found}; {self.remedy}"
                )


def missing(path: Path) -> str | None:
    """What is wrong with a path: "not there", or "empty" where it is a folder; None if nothing."""
    if not path.exists():
        return "not there"
    return "empty" if path.is_dir() and next(path.iterdir(), None) is None else None


COCO = Published(
    "COCO 2017",
    "coco",
    "get images and annotations from https://cocodataset.org/#download and unpack them into coco",
)
ADE20K = Published(
    "ADE20K (SceneParse150)",
    "ade20k",
    "unpack http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip and name its "
    "folder ade20k,",
)
VOC2012 = Published(
    "Pascal VOC 2012",
    "VOCdevkit/VOC2012",
    "unpack http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar, which "
    "makes VOCdevkit/VOC2012,",
)
CITYSCAPES = Published(
    "Cityscapes",
    "cityscapes",
    "get leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip from "
    "https://www.cityscapes-dataset.com/downloads, unpack them into cityscapes and make its "
    "*_gtFine_labelTrainIds.png with csCreateTrainIdLabelImgs of the package cityscapesscripts,",
)
BCCD = Published(
    "BCCD",
    "bccd",
    "get https://github.com/Shenggan/BCCD_Dataset, put its images into bccd/images and its boxes, "
    "in COCO's format, into bccd/annotations/instances_{train,val,test}.json",
)
NUCLEI = Published(
    "Nuclei (BBBC038, Data Science Bowl 2018)",
    "nuclei200",
    "get stage1_train from https://bbbc.broadinstitute.org/BBBC038, put its images into "
    "nuclei200/images/{train,val}, its masks, in COCO's format, into "
    "nuclei200/annotations/instances_{train,val}.json and its label maps (1 is nucleus) into "
    "nuclei200/semantic/{train,val}",
)
PUBLISHED = (
    COCO,
    ADE20K,
    VOC2012,
    CITYSCAPES,
    BCCD,
    NUCLEI,
)


def published_at(path: Path, data_root: Path) -> Published | None:
    """Return the published data set that `path` belongs to, present or not; None for any other."""
    absolute, root = path.absolute(), data_root.absolute()
    return next((one for one in PUBLISHED if absolute.is_relative_to(one.folder(root))), None)


def evenly_spread(count: int, limit: int | None) -> list[int]:
    """Indices of `limit` of `count` items, spread evenly over them; all without a limit.

    Example:
        >>> evenly_spread(10, 4), evenly_spread(3, None)
        ([0, 2, 5, 7], [0, 1, 2])
    """
    kept = count if limit is None else min(limit, count)
    return [index * count // kept for index in range(kept)]

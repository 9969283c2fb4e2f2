"""The published data sets: how each lies below the data root, and where to get it.

- `imagenet/{train,val}/<WordNet id>/*.JPEG`
- `imagenet-shards/{train,val}-*.tar`
- `coco/annotations/instances_{train,val}2017.json`, `coco/{train,val}2017/*.jpg`
- `ade20k/{images,annotations}/{training,validation}/*.{jpg,png}`
- `VOCdevkit/VOC2012/{JPEGImages,SegmentationClass,ImageSets/Segmentation}`
- `cityscapes/{leftImg8bit,gtFine}/{train,val}/<city>/*.png`
- `bccd/annotations/instances_{train,val,test}.json`, `bccd/images/*.jpg`
- `nuclei200/annotations/instances_{train,val}.json`, `nuclei200/images/{train,val}/*.png`,
  `nuclei200/semantic/{train,val}/*.png`
- `cifar10/cifar-10-batches-py/{data_batch_{1..5},test_batch}` or `cifar10/{train,test}/<class>/*`
- `cifar100/cifar-100-python/{train,test}` or `cifar100/{train,test}/<class>/*`
- `tiny-imagenet-200/{train/<WordNet id>/images,val/images}/*.JPEG`
- `nmnist/{Train,Test}/<digit>/*.bin`
- `ncaltech101/<class>/*.bin`
- `cifar10dvs/<class>/*.aedat`
- `DvsGesture/trials_to_{train,test}.txt`, `DvsGesture/*.aedat`, `DvsGesture/*_labels.csv`
- `dvs128gesture10/bs2/*.bs2`
- `hardvs/{train,test}_label.txt`, `hardvs/<action>/*.aedat4`
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from spikebench.task import MissingDataError
from spikebench_tasks.datasets import data_root


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

    @property
    def folder(self) -> Path:
        """Where it is looked for."""
        return data_root() / self.location

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


IMAGENET = Published(
    "ImageNet-1K",
    "imagenet",
    "get ILSVRC2012 from https://image-net.org/download.php and sort its images into "
    "imagenet/train and imagenet/val, a folder a class, named by WordNet id,",
)
IMAGENET_SHARDS = Published(
    "ImageNet-1K in tar files",
    "imagenet-shards",
    "write its images into tar files (https://github.com/webdataset/webdataset), <name>.jpg beside "
    "<name>.cls, which holds the number of the class, as imagenet-shards/train-000000.tar and so "
    "on, and imagenet-shards/val-000000.tar",
)
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
CIFAR10 = Published(
    "CIFAR-10",
    "cifar10",
    "unpack https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz into cifar10",
)
CIFAR100 = Published(
    "CIFAR-100",
    "cifar100",
    "unpack https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz into cifar100",
)
NMNIST = Published(
    "N-MNIST",
    "nmnist",
    "get Train.zip and Test.zip from https://www.garrickorchard.com/datasets/n-mnist and unpack "
    "them into nmnist",
)
NCALTECH101 = Published(
    "N-Caltech101",
    "ncaltech101",
    "get Caltech101.zip of https://www.garrickorchard.com/datasets/n-caltech101 and unpack its "
    "folders of classes into ncaltech101",
)
CIFAR10DVS = Published(
    "CIFAR10-DVS",
    "cifar10dvs",
    "get the archives of ten classes from https://figshare.com/articles/dataset/CIFAR10-DVS_New/"
    "4724671 and unpack them into cifar10dvs, a folder a class,",
)
DVS128GESTURE = Published(
    "DVS128 Gesture",
    "DvsGesture",
    "get DvsGesture.tar.gz from https://research.ibm.com/interactive/dvsgesture and unpack it",
)
DVS128GESTURE_CLIPS = Published(
    "Clips of DVS128 Gesture",
    "dvs128gesture10",
    "get test/test_files/binarySpikeTestFiles/{1..10}.bs2 from "
    "https://github.com/bamsumit/slayerPytorch and put them into dvs128gesture10/bs2 as "
    "01_<class>.bs2 to 10_<class>.bs2,",
)
HARDVS = Published(
    "HAR-DVS",
    "hardvs",
    "get recordings and labels from https://github.com/Event-AHU/HARDVS and unpack them into "
    "hardvs, its train_label.txt and test_label.txt beside the folders of actions,",
)
TINY_IMAGENET = Published(
    "Tiny-ImageNet",
    "tiny-imagenet-200",
    "unpack http://cs231n.stanford.edu/tiny-imagenet-200.zip",
)
PUBLISHED = (
    IMAGENET,
    IMAGENET_SHARDS,
    TINY_IMAGENET,
    COCO,
    ADE20K,
    VOC2012,
    CITYSCAPES,
    BCCD,
    NUCLEI,
    CIFAR10,
    CIFAR100,
    NMNIST,
    NCALTECH101,
    CIFAR10DVS,
    DVS128GESTURE,
    DVS128GESTURE_CLIPS,
    HARDVS,
)


def published_at(path: Path, data_root: Path) -> Published | None:
    """Return the published data set that `path` belongs to, present or not; None for any other."""
    absolute, root = path.absolute(), data_root.absolute()
    return next((one for one in PUBLISHED if absolute.is_relative_to(root / one.location)), None)


def evenly_spread(count: int, limit: int | None) -> list[int]:
    """Indices of `limit` of `count` items, spread evenly over them; all without a limit.

    Example:
        >>> evenly_spread(10, 4), evenly_spread(3, None)
        ([0, 2, 5, 7], [0, 1, 2])
    """
    kept = count if limit is None else min(limit, count)
    return [index * count // kept for index in range(kept)]

"""AP and mIoU against the packages that others report them with, on predictions of this suite."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS, DefaultScope
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask
from sklearn.metrics import confusion_matrix
from torchmetrics.classification import MulticlassJaccardIndex
from torchmetrics.detection import MeanAveragePrecision

from spikebench_tasks.detection import registered as detection
from spikebench_tasks.detection.task import DetectionTask
from spikebench_tasks.segmentation import registered as segmentation
from spikebench_tasks.segmentation.task import SegmentationTask
from tests.tasks.detection.coco_cases import (
    STATS,
    Dataset,
    Detections,
    pycocotools_stats,
    random_case,
)

from spikebench_tasks.detection.metric import CocoAP  # isort: skip
from spikebench_tasks.segmentation.metric import MeanIoU  # isort: skip

assert detection
assert segmentation

CONFIGS = Path(__file__).parents[2] / "configs"
BACKBONE = "meta_spikeformer_nano"
NAMES = {"bbox": "box", "segm": "mask"}
OPTIONS = ("score_thr=0.0", "max_per_img=100", "mask_thr_binary=0.01")
IMAGES = 12
IGNORED = 255

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def scenes(scenes_root: Path) -> Iterator[Path]:
    """The folder of the digit scenes, below the data root."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "SPIKEBENCH_DATA", str(scenes_root))
        yield scenes_root / "digit_scenes"


def seeded_model(task: Any, config: dict[str, Any]) -> Any:
    """The untrained model of a configuration; its weights are always the same."""
    return task.sketch(config).model


class TestAveragePrecision:
    """Of a detector's own boxes and masks, and of made-up ones that every rule of COCO meets."""

    @pytest.fixture(scope="class")
    def truth(self, scenes: Path) -> Dataset:
        """Some scenes; every seventh digit is a crowd, and masks are boxes.

        An untrained mask head tells inside from outside by its box alone.
        """
        dataset = json.loads((scenes / "annotations" / "instances_test.json").read_text())
        dataset["images"] = dataset["images"][:IMAGES]
        kept = {one["id"] for one in dataset["images"]}
        dataset["annotations"] = [a for a in dataset["annotations"] if a["image_id"] in kept]
        for one in dataset["annotations"]:
            left, top, width, height = (int(value) for value in one["bbox"])
            mask = np.zeros((128, 128))
            mask[top : top + height, left : left + width] = 1
            one["segmentation"] = encoded(mask)
        for one in dataset["annotations"][::7]:
            one["iscrowd"] = 1
        return dataset

    @pytest.fixture(scope="class")
    def detected(self, truth: Dataset) -> Detections:
        """What an untrained Mask R-CNN says of regions near digits: boxes, classes and masks."""
        config = DetectionTask().resolve(
            CONFIGS / "detection" / "mask_rcnn_digit_scenes.py",
            BACKBONE,
            {},
            [f"model.test_cfg.rcnn.{option}" for option in OPTIONS],
        )
        model = seeded_model(DetectionTask(), config)
        with DefaultScope.overwrite_default_scope("mmdet"):
            scored = DATASETS.build(config["test_dataloader"]["dataset"])
        rng = np.random.default_rng(0)
        found: Detections = []
        for place, image in enumerate(truth["images"]):
            item = scored[place]
            sample = item["data_samples"]
            assert sample.img_id == image["id"]
            near = [
                np.array([x, y, x + w, y + h]) + rng.normal(0, 1.5, 4)
                for one in truth["annotations"]
                if one["image_id"] == image["id"]
                for x, y, w, h in [one["bbox"]]
            ]
            sample.proposals = InstanceData(bboxes=torch.tensor(np.array(near)).float())
            with torch.no_grad():
                (made,) = model.test_step({"inputs": [item["inputs"]], "data_samples": [sample]})
            found += detections_of(image["id"], made.pred_instances)
        return found

    @pytest.mark.parametrize("kind", NAMES)
    def test_of_a_detector_it_is_that_of_pycocotools(self, tmp_path, truth, detected, kind):
        scores = coco_ap(tmp_path, truth, detected, kind)
        assert scores == pytest.approx(pycocotools_stats(truth, detected, kind), abs=1e-6)
        assert 0.01 < scores["map"] < scores["map50"] < 0.9

    @pytest.mark.parametrize("kind", NAMES)
    def test_of_a_detector_it_is_that_of_torchmetrics(self, tmp_path, truth, detected, kind):
        scores = coco_ap(tmp_path, truth, detected, kind)
        assert scores == pytest.approx(torchmetrics_stats(truth, detected, kind), abs=1e-6)

    @pytest.mark.parametrize("kind", NAMES)
    @pytest.mark.parametrize("seed", [10, 11])
    def test_of_every_rule_of_coco_it_is_that_of_both(self, tmp_path, seed, kind):
        case = random_case(seed)
        scores = coco_ap(tmp_path, *case, kind)
        assert set(scores) == set(STATS)
        assert scores == pytest.approx(pycocotools_stats(*case, kind), abs=1e-6)
        assert scores == pytest.approx(torchmetrics_stats(*case, kind), abs=1e-6)

    def test_the_thresholds_that_torchmetrics_has_by_itself_are_others(self, truth, detected):
        """Else calling it with ours would test nothing."""
        theirs = MeanAveragePrecision()
        assert theirs.iou_thresholds != np.linspace(0.5, 0.95, 10).tolist()
        assert any(one["iscrowd"] for one in truth["annotations"])


def detections_of(image: int, instances: Any) -> Detections:
    return [
        {
            "image_id": image,
            "category_id": int(label) + 1,
            "score": float(score),
            "bbox": [float(left), float(top), float(right - left), float(bottom - top)],
            "segmentation": encoded(mask.numpy()),
        }
        for label, score, (left, top, right, bottom), mask in zip(
            instances.labels,
            instances.scores,
            instances.bboxes.double(),
            instances.masks,
            strict=True,
        )
    ]


def encoded(mask: np.ndarray) -> dict[str, Any]:
    made = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": made["size"], "counts": made["counts"].decode()}


def coco_ap(folder: Path, truth: Dataset, found: Detections, kind: str) -> dict[str, float]:
    """What the suite's own metric makes of it."""
    file = folder / "annotations.json"
    file.write_text(json.dumps(truth))
    metric = CocoAP(ann_file=str(file), metric=kind, resamples=0)
    metric.dataset_meta = {"classes": [one["name"] for one in truth["categories"]]}
    for image in truth["images"]:
        mine = [one for one in found if one["image_id"] == image["id"]]
        instances = {
            "bboxes": corners(mine),
            "scores": torch.tensor([one["score"] for one in mine], dtype=torch.float64),
            "labels": torch.tensor([one["category_id"] - 1 for one in mine], dtype=torch.long),
            "masks": decoded(mine, image).bool(),
        }
        size = (image["height"], image["width"])
        sample = {"img_id": image["id"], "ori_shape": size, "pred_instances": instances}
        metric.process({}, [sample])
    scores = metric.evaluate(len(truth["images"]))
    return {name.removeprefix(f"{NAMES[kind]}_"): value for name, value in scores.items()}


def torchmetrics_stats(truth: Dataset, found: Detections, kind: str) -> dict[str, float]:
    """What torchmetrics makes of it, told COCO's thresholds, crowds and areas."""
    metric = MeanAveragePrecision(
        # of "segm" alone it drops images without an object, and all that was found in them
        iou_type=("bbox", "segm"),
        iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
        rec_thresholds=np.linspace(0, 1, 101).tolist(),
    )
    metric.warn_on_many_detections = False
    for image in truth["images"]:
        mine = [one for one in found if one["image_id"] == image["id"]]
        real = [one for one in truth["annotations"] if one["image_id"] == image["id"]]
        predicted, target = (
            {
                "labels": torch.tensor([one["category_id"] for one in some], dtype=torch.long),
                "boxes": corners(some),
                "masks": decoded(some, image).bool(),
            }
            for some in (mine, real)
        )
        predicted["scores"] = torch.tensor([one["score"] for one in mine], dtype=torch.float64)
        target["iscrowd"] = torch.tensor([one["iscrowd"] for one in real], dtype=torch.long)
        target["area"] = torch.tensor([one["area"] for one in real], dtype=torch.float64)
        metric.update([predicted], [target])
    values = metric.compute()
    names = {stat: stat.replace("map5", "map_5").replace("map7", "map_7") for stat in STATS}
    theirs = {stat: float(values[f"{kind}_{name}"]) for stat, name in names.items()}
    return {stat: value for stat, value in theirs.items() if value >= 0}


def corners(some: Detections) -> torch.Tensor:
    boxes = torch.tensor([one["bbox"] for one in some], dtype=torch.float64).reshape(-1, 4)
    return torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)


def decoded(some: Detections, image: dict[str, Any]) -> torch.Tensor:
    masks = [coco_mask.decode(one["segmentation"]) for one in some]
    return torch.tensor(np.array(masks).reshape(-1, image["height"], image["width"]))


class TestMeanIoU:
    """Of a segmentor's own label maps, and of noise around those of the digit scenes."""

    @pytest.fixture(scope="class")
    def config(self) -> dict[str, Any]:
        path = CONFIGS / "segmentation" / "semantic_fpn_digit_scenes.py"
        return SegmentationTask().resolve(path, BACKBONE, {}, [])

    @pytest.fixture(scope="class")
    def items(self, scenes: Path, config: dict[str, Any]) -> list[dict[str, Any]]:
        """So few scenes that some digits are in none."""
        with DefaultScope.overwrite_default_scope("mmseg"):
            scored = DATASETS.build(config["test_dataloader"]["dataset"])
        return [scored[place] for place in range(3)]

    @pytest.fixture(scope="class")
    def truth(self, items: list[dict[str, Any]]) -> torch.Tensor:
        return torch.stack([item["data_samples"].gt_sem_seg.data[0] for item in items]).long()

    @pytest.fixture(scope="class")
    def segmented(self, items: list[dict[str, Any]], config: dict[str, Any]) -> torch.Tensor:
        """What an untrained Semantic FPN says of them."""
        model = seeded_model(SegmentationTask(), config)
        with torch.no_grad():
            made = [
                model.test_step({"inputs": [item["inputs"]], "data_samples": [sample]})
                for item in items
                for sample in [copy.deepcopy(item["data_samples"])]
            ]
        return torch.stack([one.pred_sem_seg.data[0] for (one,) in made]).long()

    @pytest.fixture(scope="class")
    def noisy(self, truth: torch.Tensor) -> torch.Tensor:
        """A quarter of the pixels takes the label of another place."""
        generator = torch.Generator().manual_seed(0)
        elsewhere = truth.flatten()[torch.randperm(truth.numel(), generator=generator)]
        moved = torch.rand(truth.shape, generator=generator) < 0.25
        return torch.where(moved, elsewhere.reshape(truth.shape), truth)

    @pytest.fixture(params=["segmented", "noisy"])
    def predicted(self, request: pytest.FixtureRequest) -> torch.Tensor:
        return request.getfixturevalue(request.param)

    @pytest.fixture(params=["all", "ignored"])
    def counted(self, request: pytest.FixtureRequest, truth: torch.Tensor) -> torch.Tensor:
        """The truth, as it is and with a band of pixels that do not count."""
        counted = truth.clone()
        if request.param == "ignored":
            counted[:, 40:70] = IGNORED
        return counted

    def test_some_digits_are_in_no_scene(self, truth: torch.Tensor):
        assert 2 < len(truth.unique()) < 11

    def test_it_is_that_of_one_confusion_matrix(self, predicted, counted):
        known = counted != IGNORED
        matrix = confusion_matrix(counted[known], predicted[known], labels=range(11))
        hits, real, said = np.diag(matrix), matrix.sum(1), matrix.sum(0)
        present, seen = real > 0, real + said > 0
        expected = {
            "miou": (hits[seen] / (real + said - hits)[seen]).mean(),
            "macc": (hits[present] / real[present]).mean(),
            "aacc": hits.sum() / real.sum(),
        }
        scores = mean_iou(predicted, counted)
        assert scores == pytest.approx(expected, abs=1e-6)
        assert 0 < scores["miou"] < 1

    def test_it_is_that_of_torchmetrics(self, predicted, counted):
        jaccard = MulticlassJaccardIndex(11, ignore_index=IGNORED, average="macro")
        theirs = jaccard(predicted, counted).item()
        assert mean_iou(predicted, counted)["miou"] == pytest.approx(theirs, abs=1e-6)


def mean_iou(predicted: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
    metric = MeanIoU(resamples=0)
    metric.dataset_meta = {"classes": [str(label) for label in range(11)]}
    for said, real in zip(predicted, truth, strict=True):
        sample = {"pred_sem_seg": {"data": said[None]}, "gt_sem_seg": {"data": real[None]}}
        metric.process({}, [sample])
    return metric.evaluate(len(truth))

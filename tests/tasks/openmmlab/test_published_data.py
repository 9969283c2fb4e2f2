"""COCO, ADE20K, Pascal VOC and Cityscapes through the stock data sets: missing, wrong, trained on
and scored, in small and on samples."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from PIL import Image
from pycocotools import mask as coco_mask

from spikebench import profile_operations
from spikebench.errors import UserError
from spikebench.registry import TASKS
from spikebench.task import MissingDataError, Run, Task
from spikebench_tasks.datasets import DatasetError
from tests.tasks.openmmlab.trees import ade20k, cityscapes, coco, voc2012

CONFIGS = Path(__file__).parents[3] / "configs"
NANO = "meta_spikeformer_nano"
PREDICTED = (0, 1, 2, 3, 4, 20, 74, 149)  # often enough for random scores to differ from 0

pytestmark = pytest.mark.filterwarnings("ignore")


class Protocol(NamedTuple):
    """A configuration, and what makes it small."""

    task: str
    config: str
    overrides: tuple[str, ...]

    @property
    def path(self) -> Path:
        return CONFIGS / self.task / f"{self.config}.py"


PROTOCOLS = {
    "coco": Protocol(
        "detection",
        "mask_rcnn_15m_t1_coco",
        (
            "train_dataloader.dataset.pipeline.2.scale=(96, 64)",
            "test_dataloader.dataset.pipeline.1.scale=(96, 64)",
            "model.test_cfg.rpn.max_per_img=20",
        ),
    ),
    **{
        name: Protocol(
            "segmentation",
            f"semantic_fpn_15m_t1_{name}",
            (
                "train_dataloader.dataset.pipeline.2.scale=(128, 32)",
                "train_dataloader.dataset.pipeline.3.crop_size=(64, 64)",
                "test_dataloader.dataset.pipeline.1.scale=(256, 64)",
                "model.data_preprocessor.size=(64, 64)",
            ),
        )
        for name in ("ade20k", "voc2012", "cityscapes")
    },
}
MAKE = {"coco": coco, "ade20k": ade20k, "voc2012": voc2012, "cityscapes": cityscapes}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with three images a split of each data set."""
    folder = tmp_path / "data"
    for make in MAKE.values():
        make(folder, np.random.default_rng(0))
    monkeypatch.setenv("SPIKEBENCH_DATA", str(folder))
    return folder


@pytest.fixture
def new_run(make_run: Callable[..., Run]) -> Callable[..., tuple[Task, Run]]:
    def make(name: str, *overrides: str, limit: int | None = None) -> tuple[Task, Run]:
        protocol = PROTOCOLS[name]
        task = TASKS.get(protocol.task)()
        no_workers = [
            f"{split}_dataloader.{key}"
            for split in ("train", "test")
            for key in ("num_workers=0", "persistent_workers=False")
        ]
        given = [*protocol.overrides, *no_workers, *overrides]
        config = task.resolve(protocol.path, NANO, {}, given)
        return task, make_run(protocol.task, config, limit=limit)

    return make


@pytest.fixture
def nothing_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Runner, "from_cfg", lambda *_: pytest.fail("a model was built"))


def random_weights(task: Task, run: Run, path: Path) -> Path:
    torch.save({"state_dict": task.sketch(run.config).model.state_dict()}, path)
    return path


def uses(task: Task, run: Run, weights: Path) -> list[Callable[[], Any]]:
    return [
        lambda: task.train(run),
        lambda: task.evaluate(run, weights),
        lambda: task.probe(run, weights),
    ]


@pytest.mark.usefixtures("nothing_is_built")
class TestMissing:
    @pytest.mark.parametrize(
        ("name", "title", "looked_for", "source"),
        [
            (
                "coco",
                "COCO 2017",
                [f"coco/annotations/instances_{split}2017.json" for split in ("train", "val")],
                "https://cocodataset.org/#download",
            ),
            (
                "ade20k",
                "ADE20K (SceneParse150)",
                ["ade20k/images/training", "ade20k/images/validation"],
                "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
            ),
            (
                "voc2012",
                "Pascal VOC 2012",
                [f"VOCdevkit/VOC2012/ImageSets/Segmentation/{s}.txt" for s in ("train", "val")],
                "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
            ),
            (
                "cityscapes",
                "Cityscapes",
                ["cityscapes/leftImg8bit/train", "cityscapes/leftImg8bit/val"],
                "https://www.cityscapes-dataset.com/downloads",
            ),
        ],
    )
    def test_it_is_said_in_one_line(
        self, new_run, tmp_path: Path, monkeypatch, capfd, name, title, looked_for, source
    ):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("SPIKEBENCH_DATA", "none")
        task, run = new_run(name)
        train, test = looked_for
        for use, path in zip(
            uses(task, run, tmp_path / "none.pth"), (train, test, test), strict=True
        ):
            with pytest.raises(MissingDataError) as caught:
                use()
            line = str(caught.value)
            assert title in line
            assert f"{tmp_path}/none/{path}" in line
            assert source in line
            assert "--data-root" in line
            assert "\n" not in line
            assert isinstance(caught.value, UserError)
            assert isinstance(caught.value, FileNotFoundError)
        assert capfd.readouterr().out == ""

    @pytest.mark.parametrize(
        ("name", "folder"),
        [
            ("coco", "coco/val2017"),
            ("ade20k", "ade20k/annotations/validation"),
            ("voc2012", "VOCdevkit/VOC2012/JPEGImages"),
            ("cityscapes", "cityscapes/gtFine/val"),
        ],
    )
    def test_an_empty_folder_is_named(self, root: Path, new_run, name: str, folder: str):
        shutil.rmtree(root / folder)
        (root / folder).mkdir()
        task, run = new_run(name)
        for use in uses(task, run, root / "none.pth"):
            with pytest.raises(MissingDataError, match=str(root / folder)):
                use()

    def test_training_asks_for_the_test_split_before_it_starts(self, root: Path, new_run):
        (root / "coco" / "annotations" / "instances_val2017.json").unlink()
        task, run = new_run("coco")
        with pytest.raises(MissingDataError, match=r"instances_val2017\.json"):
            task.train(run)


@pytest.mark.usefixtures("nothing_is_built")
class TestWrong:
    """What else can be wrong is tested beside `check_data`."""

    def test_a_run_stops_before_a_model_is_built(self, root: Path, new_run, capfd):
        path = root / "coco" / "val2017" / "000000000002.jpg"
        path.write_bytes(path.read_bytes()[:-200])
        task, run = new_run("coco")
        for use in uses(task, run, root / "none.pth"):
            with pytest.raises(DatasetError) as caught:
                use()
            assert str(caught.value).startswith(f"test: {path} (image 2)")
        assert capfd.readouterr().out == ""

    def test_training_looks_at_both_splits_and_scoring_at_its_own(self, root: Path, new_run):
        path = root / "ade20k" / "annotations" / "training" / "ADE_train_00000002.png"
        labels = np.array(Image.open(path))
        labels[-1, -1] = 151
        Image.fromarray(labels).save(path)
        task, run = new_run("ade20k")
        with pytest.raises(DatasetError, match=f"{path} .*151"):
            task.train(run)
        with pytest.raises(pytest.fail.Exception, match="a model was built"):
            task.evaluate(run, root / "none.pth")


@pytest.mark.parametrize(("name", "final"), [("coco", "epoch_1.pth"), ("voc2012", "iter_2.pth")])
def test_it_trains(root: Path, new_run, name: str, final: str):
    length = {
        "coco": ["train_cfg.max_epochs=1"],
        "voc2012": ["train_cfg.max_iters=2", "default_hooks.checkpoint.interval=2"],
    }
    task, run = new_run(name, *length[name], "train_dataloader.batch_size=2")
    checkpoint = task.train(run)
    assert checkpoint == run.folder / final
    dataset = task.evaluate(run, checkpoint).dataset
    assert (dataset.train_samples, dataset.test_samples) == (3, 3)


def segmented(task: Task, run: Run, path: Path) -> list[tuple[Path, np.ndarray]]:
    """Weights that predict a few classes are put at `path`; what they predict, by image."""
    random_weights(task, run, path)
    model, batches, forward, *_ = task.probe(run, path)
    torch.manual_seed(0)
    with torch.no_grad():
        for part in (model.neck, model.decode_head):  # else hardly a neuron of theirs fires
            part.initial_current = 2.0
            part.init_weights()
        for norm in (m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)):
            norm.momentum = None
        model.decode_head.conv_seg.weight.normal_()
        rare = [k for k in range(model.decode_head.num_classes) if k not in PREDICTED]
        model.decode_head.conv_seg.bias[rare] = -1e4
        model.train()
        for batch in batches:
            forward(model, batch)
        model.eval()
        samples = [one for batch in batches for one in forward(model, batch)]
    torch.save({"state_dict": model.state_dict()}, path)
    return [(Path(one.img_path), one.pred_sem_seg.data[0].numpy()) for one in samples]


def mean_iou(found: np.ndarray, truth: np.ndarray, classes: int) -> tuple[float, float]:
    """mIoU over classes that are there or found, and pixel accuracy, where truth is not 255."""
    counted = truth != 255
    found, truth = found[counted], truth[counted]
    ious = [
        ((found == k) & (truth == k)).sum() / ((found == k) | (truth == k)).sum()
        for k in range(classes)
        if (found == k).any() or (truth == k).any()
    ]
    return float(np.mean(ious)), float((found == truth).mean())


def check_segmentation(task: Task, run: Run, name: str, path: Path) -> Any:
    """Scores against those of the predictions, counted by hand against the files; the data set."""
    predicted = segmented(task, run, path)
    folder, classes, shift = {
        "ade20k": (lambda image: image.parents[2] / "annotations" / image.parent.name, 150, 1),
        "voc2012": (lambda image: image.parents[1] / "SegmentationClass", 21, 0),
        "cityscapes": (
            lambda image: image.parents[3] / "gtFine" / "val" / image.parent.name,
            19,
            0,
        ),
    }[name]
    found, truth = [], []
    for image, labels in predicted:
        stem = image.stem.replace("_leftImg8bit", "_gtFine_labelTrainIds")
        with Image.open(folder(image) / f"{stem}.png") as opened:
            expected = np.asarray(opened).astype(int)
        assert labels.shape == expected.shape  # of the image, not of what the model saw
        found.append(labels.ravel())
        truth.append(
            np.where((expected < shift) | (expected == 255), 255, expected - shift).ravel()
        )
    assert len(np.unique(np.concatenate(found))) > 2
    metrics, dataset = task.evaluate(run, path)[:2]
    miou, accuracy = mean_iou(np.concatenate(found), np.concatenate(truth), classes)
    assert metrics["miou"] == pytest.approx(miou, abs=1e-9)
    assert miou > 0
    assert metrics["aacc"] == pytest.approx(accuracy, abs=1e-9)
    return dataset


@pytest.mark.parametrize(
    ("name", "split"), [("ade20k", "validation"), ("voc2012", "val"), ("cityscapes", "val")]
)
def test_a_segmentor_is_scored(root: Path, new_run, tmp_path: Path, name: str, split: str):
    dataset = check_segmentation(*new_run(name), name, tmp_path / "weights.pth")
    assert (dataset.name, dataset.split) == (name, split)
    assert (dataset.train_samples, dataset.test_samples) == (3, 3)


@pytest.mark.data
def test_a_segmentor_is_scored_on_ade20k(samples: Path, new_run, tmp_path: Path):
    """Images of the validation split; there are none of the other."""
    dataset = check_segmentation(*new_run("ade20k"), "ade20k", tmp_path / "weights.pth")
    assert (dataset.train_samples, dataset.test_samples) == (None, 3)


@pytest.fixture
def perfect_detector(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Lets a detector predict what the annotations say, found by image id."""

    def use(annotations: Path) -> None:
        from spikebench_tasks.detection.detectors import SpikingMaskRCNN

        content = json.loads(annotations.read_text())
        names = {one["id"]: one["name"] for one in content["categories"]}
        classes = CocoDataset.METAINFO["classes"]

        def predict(self, inputs: torch.Tensor, samples: list, rescale: bool = True) -> list:
            assert not any(side % 32 for side in inputs.shape[-2:])
            for sample in samples:
                truth = [o for o in content["annotations"] if o["image_id"] == sample.img_id]
                boxes = torch.tensor([o["bbox"] for o in truth], dtype=torch.float32).view(-1, 4)
                boxes[:, 2:] += boxes[:, :2]
                masks = [coco_mask.decode(o["segmentation"]) for o in truth]
                labels = [classes.index(names[o["category_id"]]) for o in truth]
                sample.pred_instances = InstanceData(
                    bboxes=boxes,
                    scores=torch.ones(len(truth)),
                    labels=torch.tensor(labels, dtype=torch.long),
                    masks=torch.from_numpy(
                        np.array(masks, dtype=bool).reshape(len(truth), *sample.ori_shape)
                    ),
                )
            return samples

        monkeypatch.setattr(SpikingMaskRCNN, "predict", predict)

    return use


def check_detection(
    task: Task, run: Run, root: Path, path: Path, perfect: Callable[[Path], None]
) -> Any:
    """Scores of random weights lie between 0 and 1, and those of the truth are 1; the data set."""
    random_weights(task, run, path)
    metrics, dataset = task.evaluate(run, path)[:2]
    assert {"box_map", "mask_map", "box_map50", "mask_map50"} <= metrics.keys()
    assert all(0 <= value < 0.5 for value in metrics.values())
    perfect(root / "coco" / "annotations" / "instances_val2017.json")
    metrics = task.evaluate(run, path).metrics
    assert metrics["box_map"] == pytest.approx(1)
    assert metrics["mask_map"] == pytest.approx(1)
    return dataset


def test_a_detector_is_scored(root: Path, new_run, tmp_path: Path, perfect_detector):
    task, run = new_run("coco")
    dataset = check_detection(task, run, root, tmp_path / "weights.pth", perfect_detector)
    assert (dataset.name, dataset.split) == ("coco", "val2017")
    assert (dataset.train_samples, dataset.test_samples) == (3, 3)


@pytest.mark.data
def test_a_detector_is_scored_on_coco(samples: Path, new_run, tmp_path: Path, perfect_detector):
    task, run = new_run("coco", limit=6)
    dataset = check_detection(task, run, samples, tmp_path / "weights.pth", perfect_detector)
    assert dataset.test_samples == 6


@pytest.mark.data
@pytest.mark.parametrize("name", ["coco", "ade20k"])
def test_operations_are_counted_on_real_images(samples: Path, new_run, tmp_path: Path, name: str):
    task, run = new_run(name, limit=1)
    probe = task.probe(run, random_weights(task, run, tmp_path / "weights.pth"))
    report = profile_operations(
        probe.model, probe.batches, forward=probe.forward, images=probe.images
    )
    assert report.images == 1
    assert {"backbone", "neck"} <= {row.name.partition(".")[0] for row in report.rows}

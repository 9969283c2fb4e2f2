"""Mean IoU against a confusion matrix of one's own, and against torchmetrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import METRICS
from torchmetrics.classification import MulticlassJaccardIndex

from spikebench.task import ConfigError
from spikebench_tasks.segmentation import registered

from spikebench_tasks.segmentation.metric import MeanIoU  # isort: skip

assert registered
CLASSES = 11
IGNORED = 255

pytestmark = pytest.mark.filterwarnings("ignore")


def maps(
    seed: int = 0, images: int = 6, absent: tuple[int, ...] = (), ignored: float = 0.1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions, right for two pixels of three, and truth; each `(images, 16, 24)`."""
    generator = torch.Generator().manual_seed(seed)
    present = torch.tensor([label for label in range(CLASSES) if label not in absent])

    def draw() -> torch.Tensor:
        return present[torch.randint(len(present), (images, 16, 24), generator=generator)]

    truth, other = draw(), draw()
    predicted = torch.where(torch.rand(truth.shape, generator=generator) < 2 / 3, truth, other)
    truth[torch.rand(truth.shape, generator=generator) < ignored] = IGNORED
    return predicted, truth


def score(predicted: torch.Tensor, truth: torch.Tensor, of: int = 2) -> dict[str, Any]:
    return scored(predicted, truth, of, resamples=0)[1]


def scored(
    predicted: torch.Tensor, truth: torch.Tensor, of: int = 2, **options: Any
) -> tuple[MeanIoU, dict[str, float]]:
    metric = MeanIoU(**options)
    metric.dataset_meta = {"classes": [str(label) for label in range(CLASSES)]}
    for start in range(0, len(truth), of):
        samples = [
            {"pred_sem_seg": {"data": one[None]}, "gt_sem_seg": {"data": other[None]}}
            for one, other in zip(
                predicted[start : start + of], truth[start : start + of], strict=True
            )
        ]
        metric.process({}, samples)
    return metric, metric.evaluate(len(truth))


def reference(predicted: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
    ious, recalls, aacc = by_class(predicted, truth)
    miou, macc = (np.mean(list(kind.values())) for kind in (ious, recalls))
    return {"miou": miou, "macc": macc, "aacc": aacc}


def by_class(
    predicted: torch.Tensor, truth: torch.Tensor
) -> tuple[dict[str, float], dict[str, float], float]:
    """From one confusion matrix over all pixels, rows the truth."""
    confusion = np.zeros((CLASSES, CLASSES))
    for one, other in zip(predicted.flatten().tolist(), truth.flatten().tolist(), strict=True):
        if other != IGNORED:
            confusion[other, one] += 1
    hits, real, said = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    everything = range(CLASSES)
    union = real + said - hits
    ious = {str(c): hits[c] / union[c] for c in everything if union[c]}
    recalls = {str(c): hits[c] / real[c] for c in everything if real[c]}
    return ious, recalls, hits.sum() / real.sum()


CASES = {
    "plain": maps(ignored=0.0),
    "ignored": maps(seed=1),
    "mostly_ignored": maps(seed=2, ignored=0.9),
    "absent": maps(seed=3, absent=(0, 7)),
    "one_image": maps(seed=4, images=1),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_that_of_one_confusion_matrix(case: str):
    predicted, truth = CASES[case]
    scores = score(predicted, truth)
    assert scores == pytest.approx(reference(predicted, truth), abs=1e-12)
    assert all(type(value) is float for value in scores.values())
    assert all(0.2 < value < 0.99 for value in scores.values())
    assert all(round(value, 4) != value for value in scores.values())


@pytest.mark.parametrize("case", CASES)
def test_it_is_that_of_torchmetrics(case: str):
    predicted, truth = CASES[case]
    jaccard = MulticlassJaccardIndex(CLASSES, ignore_index=IGNORED, average="macro")
    assert score(predicted, truth)["miou"] == pytest.approx(
        jaccard(predicted, truth).item(), abs=1e-6
    )


def test_areas_are_summed_over_images_before_they_are_divided():
    """The mean of the images' IoUs, 0.6875 here, is another figure."""
    truth = torch.zeros(2, 4, 4, dtype=torch.long)
    truth[1, 0] = 1
    predicted = torch.zeros_like(truth)
    for of in (1, 2):
        assert score(predicted, truth, of)["miou"] == pytest.approx((28 / 32 + 0 / 4) / 2)


def test_a_class_that_is_only_predicted_lowers_the_iou_and_not_the_recall():
    truth = torch.zeros(1, 4, 4, dtype=torch.long)
    predicted = truth.clone()
    predicted[0, 0] = 5
    scores = score(predicted, truth)
    assert scores == pytest.approx({"miou": (0.75 + 0) / 2, "macc": 0.75, "aacc": 0.75})


def test_a_class_that_is_missed_counts_as_nothing_found():
    truth = torch.zeros(1, 4, 4, dtype=torch.long)
    truth[0, 0] = 5
    scores = score(torch.zeros_like(truth), truth)
    assert scores == pytest.approx({"miou": (0.75 + 0) / 2, "macc": 0.5, "aacc": 0.75})


def test_what_is_predicted_on_ignored_pixels_does_not_matter():
    predicted, truth = CASES["ignored"]
    other = torch.where(truth == IGNORED, (predicted + 1) % CLASSES, predicted)
    assert not torch.equal(predicted, other)
    assert score(predicted, truth) == score(other, truth)


def test_all_right_is_one():
    _, truth = maps(ignored=0.0)
    assert score(truth, truth) == {"miou": 1.0, "macc": 1.0, "aacc": 1.0}


def test_every_figure_is_a_metric_of_the_task():
    from spikebench_tasks.segmentation.task import SegmentationTask

    assert score(*CASES["plain"]).keys() == SegmentationTask.metrics.keys()


@pytest.mark.parametrize("case", CASES)
def test_per_class_they_are_what_the_means_are_of(case: str):
    predicted, truth = CASES[case]
    metric, scores = scored(predicted, truth, resamples=0)
    ious, recalls, _ = by_class(predicted, truth)
    assert metric.per_class["miou"] == pytest.approx(ious, abs=1e-12)
    assert metric.per_class["macc"] == pytest.approx(recalls, abs=1e-12)
    for name, figures in metric.per_class.items():
        assert np.mean(list(figures.values())) == pytest.approx(scores[name], abs=1e-12)
        assert all(type(value) is float for value in figures.values())


def test_a_class_that_is_not_there_has_no_figure():
    metric, _ = scored(*CASES["absent"], resamples=0)
    absent = {"0", "7"}
    for figures in metric.per_class.values():
        assert set(figures) == {str(label) for label in range(CLASSES)} - absent


def test_one_that_is_only_predicted_has_an_iou_of_zero_and_no_accuracy():
    truth = torch.zeros(1, 4, 4, dtype=torch.long)
    predicted = truth.clone()
    predicted[0, 0] = 5
    metric, _ = scored(predicted, truth)
    assert metric.per_class == {"miou": {"0": 0.75, "5": 0.0}, "macc": {"0": 0.75}}


def test_intervals_are_those_of_images_that_come_so_many_times():
    predicted, truth = maps(seed=5, images=9, absent=(2,))
    truth[3][truth[3] == 4] = 6
    metric, point = scored(predicted, truth, resamples=70)
    drawn = np.random.default_rng(0).multinomial(9, [1 / 9] * 9, 70)
    resampled = [
        reference(*(one.repeat_interleave(torch.tensor(counts), 0) for one in (predicted, truth)))
        for counts in drawn
    ]
    assert metric.intervals.keys() == point.keys()
    for name, ends in metric.intervals.items():
        values = np.array([scores[name] for scores in resampled])
        low, high = np.quantile(values, (0.025, 0.975)) - (values.mean() - point[name])
        assert ends == pytest.approx((low, high), abs=1e-9)
        assert low < point[name] < high


def test_no_resamples_and_one_image_have_no_interval():
    assert scored(*CASES["plain"], resamples=0)[0].intervals == {}
    assert scored(*CASES["one_image"])[0].intervals == {}


def test_where_no_pixel_counts_there_is_no_figure():
    truth = torch.full((2, 4, 4), IGNORED)
    metric, scores = scored(torch.zeros_like(truth), truth)
    assert (scores, metric.intervals) == ({}, {})
    assert metric.per_class == {"miou": {}, "macc": {}}


@pytest.mark.parametrize("stock", ["ade20k", "cityscapes", "pascal_voc12"])
def test_the_type_alone_of_a_stock_evaluator_is_overridden(tmp_path: Path, stock: str):
    file = tmp_path / "config.py"
    file.write_text(
        f"_base_ = ['mmseg::_base_/datasets/{stock}.py']\nval_evaluator = dict(type='MeanIoU')\n"
    )
    described = Config.fromfile(file).val_evaluator
    assert described.iou_metrics == ["mIoU"]
    assert type(METRICS.build(described)) is MeanIoU


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iou_metrics": ["mIoU", "mDice"]}, r"'mDice'"),
        ({"iou_metrics": "mFscore"}, r"'mFscore'"),
        ({"format_only": True}, "format_only=True"),
        ({"resamples": -1}, "resamples is -1"),
    ],
)
def test_what_it_does_not_do_is_refused(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        MeanIoU(**options)

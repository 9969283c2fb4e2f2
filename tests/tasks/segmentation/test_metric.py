"""Mean IoU against a confusion matrix of one's own, and against torchmetrics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from tasks.segmentation import registered

from tasks.segmentation.metric import MeanIoU  # isort: skip

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
    metric = MeanIoU()
    metric.dataset_meta = {"classes": [str(label) for label in range(CLASSES)]}
    for start in range(0, len(truth), of):
        samples = [
            {"pred_sem_seg": {"data": one[None]}, "gt_sem_seg": {"data": other[None]}}
            for one, other in zip(
                predicted[start : start + of], truth[start : start + of], strict=True
            )
        ]
        metric.process({}, samples)
    return metric.evaluate(len(truth))


def reference(predicted: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
    """From one confusion matrix over all pixels, rows the truth."""
    confusion = np.zeros((CLASSES, CLASSES))
    for one, other in zip(predicted.flatten().tolist(), truth.flatten().tolist(), strict=True):
        if other != IGNORED:
            confusion[other, one] += 1
    hits, real, said = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    ious = [hits[c] / (real[c] + said[c] - hits[c]) for c in range(CLASSES) if real[c] + said[c]]
    recalls = [hits[c] / real[c] for c in range(CLASSES) if real[c]]
    return {"miou": np.mean(ious), "macc": np.mean(recalls), "aacc": hits.sum() / real.sum()}


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
    from tasks.segmentation.task import SegmentationTask

    assert score(*CASES["plain"]).keys() == SegmentationTask.metrics.keys()

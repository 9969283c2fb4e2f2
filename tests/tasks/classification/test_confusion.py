"""The picture of a confusion matrix, also where LaTeX is installed."""

import io
import subprocess
from pathlib import Path

import lightning as L
import numpy as np
import pytest
from PIL import Image

from spikebench_tasks.classification.confusion import ConfusionMatrix, confusion_figure
from spikebench_tasks.classification.datasets.digits import DigitsDataModule
from spikebench_tasks.classification.module import ClassificationModule


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_it_shows_shares_of_each_class(classes: int):
    counts = np.eye(classes, dtype=int) * 7
    counts[0, 1] = 21
    names = [f"class_{place}$^" for place in range(classes)]
    figure = confusion_figure(counts, names)
    (axes,) = figure.axes
    shares = axes.images[0].get_array()
    assert shares[0, :2].tolist() == [0.25, 0.75]
    written = {text.get_text() for text in axes.texts}
    assert written == ({"0", "7", "21"} if classes <= 30 else set())


def test_a_class_without_images_is_empty():
    figure = confusion_figure(np.array([[0, 0], [1, 3]]), ["a", "b"])
    assert figure.axes[0].images[0].get_array().tolist() == [[0, 0], [0.25, 0.75]]


def test_it_runs_no_program(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError(f"{arguments} was run")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    file = io.BytesIO()
    confusion_figure(np.array([[1, 2], [0, 3]]), ["$^$", "1"]).savefig(file, format="png")
    with Image.open(file) as picture:
        assert min(picture.size) > 300


@pytest.mark.filterwarnings("ignore")
def test_a_trainer_without_a_data_module_has_numbers_for_names(tmp_path: Path):
    data = DigitsDataModule(limit=4)
    data.setup("test")
    confusion = ConfusionMatrix(tmp_path / "confusion.png")
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[confusion]
    )
    module = ClassificationModule("meta_spikeformer_nano", num_classes=10)
    trainer.test(module, data.test_dataloader(), verbose=False)
    assert confusion.counts.sum() == 4
    assert (tmp_path / "confusion.png").stat().st_size

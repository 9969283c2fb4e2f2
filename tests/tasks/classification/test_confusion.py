"""The picture of a confusion matrix, also where LaTeX is installed."""

import io
import subprocess

import numpy as np
import pytest
from PIL import Image

from spikebench_tasks.classification.confusion import confusion_figure


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

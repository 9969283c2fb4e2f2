"""The picture of a confusion matrix.

torchmetrics draws one too, in a style that runs LaTeX wherever LaTeX is installed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_READABLE = 30  # classes whose names and counts are written into a picture


def confusion_figure(counts: np.ndarray, classes: Sequence[str]) -> Figure:
    """Draw what was predicted of the images of each class.

    Args:
        counts: `(num_classes, num_classes)`, rows the truth, columns what was predicted.
        classes: their names; of many classes neither these nor counts are written.

    Returns:
        A figure whose colours are shares of a class's images.
    """
    few = len(classes) <= _READABLE
    side = max(6.0, 0.45 * len(classes)) if few else 10.0
    figure = Figure(figsize=(side, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if few:
        names = [name.replace("$", r"\$") for name in classes]
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
        for (true, predicted), count in np.ndenumerate(counts):
            colour = "white" if shares[true, predicted] > 0.5 else "black"
            axes.text(
                predicted, true, str(count), ha="center", va="center", fontsize=8, color=colour
            )
    return figure

"""The heat map of firing rates: layers down, time steps across."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spikebench.energy.operations import NeuronRow
from spikebench.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

SILENT, SATURATED = "#b3261e", "#8a5a00"
_MOST_STEPS_WITH_FIGURES = 12
_INCHES_A_LAYER, _INCHES_A_STEP, _INCHES_AROUND = 0.17, 0.42, 4.2


def write_heat_map(neurons: Sequence[NeuronRow], title: str, path: Path) -> None:
    """Draw the firing rates of layers of neurons into a PNG file.

    The first column is the mean over time steps. Layers that never fire, or always, have their
    names in colour and marked.

    Args:
        neurons: at least one layer; one whose time steps cannot be told apart has its mean alone.
        title: above the picture.
        path: of the file, which appears whole or not at all.
    """
    figure = _draw(neurons, title)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def _draw(neurons: Sequence[NeuronRow], title: str) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = max(len(row.rates) for row in neurons)
    means = np.array([[100 * row.rate] for row in neurons])
    rates = np.full((len(neurons), steps), np.nan)
    for line, row in zip(rates, neurons, strict=True):
        line[: len(row.rates)] = [100 * rate for rate in row.rates]
    highest = max(float(np.nanmax(np.hstack([means, rates]))), 1.0)

    width = _INCHES_AROUND + _INCHES_A_STEP * (1 + steps)
    height = 1.2 + _INCHES_A_LAYER * len(neurons)
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=8)
    widths = [1, steps] if steps else [1]
    panels = figure.subplots(1, len(widths), width_ratios=widths, sharey=True, squeeze=False)[0]
    shown = [_panel(panels[0], means, highest, ["mean"])]
    if steps:
        labels = [str(step) for step in range(1, steps + 1)]
        shown.append(_panel(panels[1], rates, highest, labels))
        panels[1].set_xlabel("time step", fontsize=7)
        panels[1].tick_params(axis="y", left=False, labelleft=False)
    _name_layers(panels[0], neurons)
    bar = figure.colorbar(shown[0], ax=list(panels), location="right", shrink=0.5, aspect=40)
    bar.set_label("neurons that fire (%), square-root scale", fontsize=7)
    bar.ax.tick_params(labelsize=6)
    return figure


def _panel(axes: Axes, rates: np.ndarray, highest: float, labels: list[str]) -> AxesImage:
    from matplotlib.colors import PowerNorm

    scale = PowerNorm(0.5, vmin=0, vmax=highest)  # most rates are low: a few high ones hide them
    image = axes.imshow(rates, aspect="auto", cmap="viridis", norm=scale)
    axes.set_facecolor("lightgrey")
    shown = range(0, len(labels), 1 + len(labels) // (2 * _MOST_STEPS_WITH_FIGURES))
    axes.set_xticks(list(shown), [labels[place] for place in shown], fontsize=7)
    axes.xaxis.set_ticks_position("top")
    axes.xaxis.set_label_position("top")
    if len(labels) <= _MOST_STEPS_WITH_FIGURES:
        for (layer, step), rate in np.ndenumerate(rates):
            if not np.isnan(rate):
                colour = "black" if scale(rate) > 0.65 else "white"
                text = f"{rate:.1f}"
                axes.text(step, layer, text, ha="center", va="center", fontsize=6, color=colour)
    return image


def _name_layers(axes: Axes, neurons: Sequence[NeuronRow]) -> None:
    marks = {0.0: (" (silent)", SILENT), 1.0: (" (saturated)", SATURATED)}
    found = [marks.get(row.rate, ("", "black")) for row in neurons]
    names = [row.name + mark for row, (mark, _) in zip(neurons, found, strict=True)]
    axes.set_yticks(range(len(names)), names, fontsize=6.5)
    for label, (_, colour) in zip(axes.get_yticklabels(), found, strict=True):
        label.set_color(colour)

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from spikebench.report import heatmap
from spikebench.report.heatmap import write_heat_map
from tests.benchmark.energy.reports import neurons

LAYERS = [
    neurons("stages.0.lif", [0.125, 0.25]),
    neurons("stages.1.lif", [0.0, 0.0]),
    neurons("lif", [1.0, 1.0]),
]


def drawn(layers):
    figure = heatmap._draw(layers, "title")
    *panels, bar = figure.axes
    return panels, bar


def test_rates_are_layers_down_and_time_steps_across():
    (means, steps), bar = drawn(LAYERS)
    assert means.images[0].get_array().tolist() == [[18.75], [0.0], [100.0]]
    assert steps.images[0].get_array().tolist() == [[12.5, 25.0], [0.0, 0.0], [100.0, 100.0]]
    assert means.images[0].get_clim() == steps.images[0].get_clim() == (0, 100)
    assert [text.get_text() for text in steps.texts] == ["12.5", "25.0", "0.0", "0.0"] + [
        "100.0"
    ] * 2
    assert [label.get_text() for label in steps.get_xticklabels()] == ["1", "2"]
    assert bar.get_ylabel() == "neurons that fire (%), square-root scale"


def test_silent_and_saturated_layers_are_marked():
    (means, _), _ = drawn(LAYERS)
    labels = [(label.get_text(), label.get_color()) for label in means.get_yticklabels()]
    assert labels == [
        ("stages.0.lif", "black"),
        ("stages.1.lif (silent)", heatmap.SILENT),
        ("lif (saturated)", heatmap.SATURATED),
    ]


def test_where_time_steps_cannot_be_told_apart_the_mean_is_shown():
    mean_only = [layer.model_copy(update={"rates": []}) for layer in LAYERS]
    panels, _ = drawn(mean_only)
    assert len(panels) == 1
    (_, steps), _ = drawn([*LAYERS[:1], mean_only[1]])
    assert steps.images[0].get_array().mask.tolist() == [[False, False], [True, True]]
    assert len(steps.texts) == 2


@pytest.mark.parametrize("count", [13, 60])
def test_many_time_steps_have_colours_alone_and_few_labels(count):
    (_, steps), _ = drawn([neurons("lif", [0.5] * count)])
    assert len(steps.texts) == 0
    assert len(steps.get_xticklabels()) <= 24


@pytest.mark.parametrize("layers", [1, 77])
def test_a_picture_has_room_for_every_layer(tmp_path: Path, layers: int):
    path = tmp_path / "new" / "rates.png"
    write_heat_map([neurons(f"backbone.{i}.lif", [0.1] * 4) for i in range(layers)], "t", path)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.height > 24 * layers
    assert [one.name for one in path.parent.iterdir()] == ["rates.png"]

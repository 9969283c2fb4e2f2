import io

import pytest
from rich.console import Console

from spikebench.report import make_tables, print_tables
from spikebench.report.columns import Column
from spikebench.report.terminal_width import DISPENSABLE, NOT_IN_TERMINAL, fit

ESTIMATORS = ("rate-45nm", "exact-45nm", "paper-45nm", "lemaire-45nm", "dense-45nm")


def column(key, title, kind="measured", group=""):
    return Column(key, title, lambda _: None, kind, group=group)


NAME = column("name", "name", "text")
FIGURE = column("figure", "measured (mJ)", group="energy")
PROTOCOL = column("protocol", "protocol", "text")
TEXTS = {"name": ["n" * 30], "figure": ["+1234.5678 (1)"], "protocol": ["p" * 20]}


def shown(records, width):
    console = Console(width=width, record=True, file=io.StringIO())
    energy = next(table for table in make_tables(records) if table.name == "energy")
    print_tables([energy], console)
    return console.export_text()


def test_where_there_is_room_nothing_is_broken():
    found = fit([NAME, FIGURE, PROTOCOL], TEXTS, 100)
    assert (found.columns, found.left_out, dict(found.widths)) == ([NAME, FIGURE, PROTOCOL], (), {})
    assert found.heading(FIGURE) == "energy\nmeasured (mJ)"
    assert found.heading(NAME) == "name"


def test_texts_and_headings_give_way_before_figures():
    found = fit([NAME, FIGURE, PROTOCOL], TEXTS, 60)
    assert found.columns == [NAME, FIGURE, PROTOCOL]
    assert dict(found.widths) == {"name": 60 // 5, "figure": len("+1234.5678")}
    assert found.heading(FIGURE) == "energy\nmeasured\n(mJ)"


def test_then_columns_that_can_be_spared():
    found = fit([NAME, FIGURE, PROTOCOL], TEXTS, 30)
    assert (found.columns, found.left_out) == ([NAME, FIGURE], (PROTOCOL,))


def test_the_first_column_always_stays():
    found = fit([PROTOCOL, FIGURE], TEXTS, 5)
    assert found.columns == [PROTOCOL, FIGURE]
    assert not found.widths


def test_a_column_without_heading_or_words_has_a_width():
    blank = column("blank", "")
    texts = {**TEXTS, "blank": [""]}
    assert fit([NAME, blank], texts, 20).widths["blank"] == 0


def test_hidden_columns_are_in_files_only():
    assert fit([NAME, FIGURE], TEXTS, 100, hidden={"figure"}).columns == [NAME]
    assert not NOT_IN_TERMINAL & set(DISPENSABLE)


@pytest.mark.parametrize("width", [160, 120, 100, 80])
def test_five_estimators_stay_readable(make_record, pairs, width):
    energy = {name: 0.0196 + n / 1000 for n, name in enumerate(ESTIMATORS)}
    text = shown(pairs(make_record(backbone="meta_spikeformer_nano", energy=energy)), width)
    for name in ("exact-45nm", "paper-45nm", "dense-45nm")[: 3 if width > 80 else 2]:
        assert name in text
        assert f"{energy[name]:.5f}" in text
    assert "lemaire" not in text
    hidden = " ".join(text.split()).partition("hidden")[2]
    assert ("protocol" in hidden) == (width < 160)


@pytest.mark.parametrize("width", [120, 80])
def test_boxes_and_masks_of_several_data_sets_stay_readable(make_record, pairs, width):
    stats = ("map", "map50", "map75", "map_small", "map_medium", "map_large")
    metrics = {f"{kind}_{stat}": 0.301 for kind in ("box", "mask") for stat in stats}
    records = [
        make_record(data, "meta_spikeformer_15m", task="detection", dataset=data, metrics=metrics)
        for data in ("bccd", "coco")
    ]
    console = Console(width=width, record=True, file=io.StringIO())
    print_tables(make_tables(pairs(*records))[:1], console)
    text = console.export_text()
    assert text.count("30.1") == 2 * 6
    assert "bccd" in text
    assert "coco" in text

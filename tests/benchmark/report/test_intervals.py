import csv
import io
from pathlib import Path

import pytest
from rich.console import Console

from spikebench.report import make_tables, print_tables, to_csv, to_latex, to_markdown

BASE = Path("work/report")
AWKWARD = r"a_b|c%d&e#f$g{h}i~j^k\l<m>*[n]"


def table(pairs, name):
    return next(table for table in make_tables(pairs) if table.name == name)


def texts(table, row=0):
    return {column.key: column.text(table.rows[row].cells[column.key]) for column in table.columns}


def csv_rows(table):
    return list(csv.DictReader(io.StringIO(to_csv(table, BASE))))


def with_intervals(record, **ends):
    metrics = {
        name: metric.model_copy(update={"interval": ends.get(name)})
        for name, metric in record.metrics.items()
    }
    return record.model_copy(update={"metrics": metrics})


@pytest.fixture
def known(make_record):
    """A detector whose box AP has an interval, and its AP50 has none."""
    metrics = {"box_map": 0.57912, "box_map50": 0.8}
    record = make_record(task="detection", metrics=metrics)
    return with_intervals(record, box_map=(0.5508, 0.60444))


def test_the_interval_of_a_single_run_stands_behind_its_figure(known, pairs):
    made = table(pairs(known), "detection")
    assert (texts(made)["box_map"], texts(made)["box_map50"]) == ("57.9 (55.1–60.4)", "80.0")
    markdown = to_markdown(made, BASE)
    assert "| 57.9 (55.1–60.4) | 80.0 |" in markdown
    assert markdown.count("95 % interval") == 1
    latex = to_latex(made, BASE)
    assert "57.9 (55.1--60.4) & 80.0" in latex
    assert r"95 \% interval" in latex


def test_a_table_without_intervals_has_no_word_of_them(make_record, pairs):
    made = table(pairs(make_record()), "accuracy")
    for text in (to_markdown(made, BASE), to_latex(made, BASE)):
        assert "interval" not in text


def test_csv_has_the_ends_of_an_interval(known, make_record, pairs):
    row = csv_rows(table(pairs(known), "detection"))[0]
    ends = ("box_map", "box_map_low", "box_map_high", "box_map50", "box_map50_low")
    assert [row[name] for name in ends] == ["0.57912", "0.5508", "0.60444", "0.8", ""]
    energy = csv_rows(table(pairs(known), "energy"))[0]
    assert not [name for name in energy if name.endswith(("_low", "_high"))]
    failed = make_record("k1", "broken", task="detection", error="no")
    rows = csv_rows(table(pairs(known, failed), "detection"))
    assert (rows[1]["box_map_high"], rows[1]["status"]) == ("", "failed")


def test_seeds_show_their_spread_and_no_interval(known, pairs):
    other = known.model_copy(update={"key": "k1", "seed": 1})
    made = table(pairs(known, other), "detection")
    assert texts(made)["box_map"] == "57.9 ± 0.0 (2)"
    assert "interval" not in to_markdown(made, BASE)
    assert csv_rows(made)[0]["box_map_low"] == ""


def test_the_terminal_has_room_for_figures_only(known, pairs):
    console = Console(width=200, record=True, file=io.StringIO())
    print_tables(make_tables(pairs(known)), console)
    text = console.export_text()
    assert "57.9" in text
    assert "55.1" not in text

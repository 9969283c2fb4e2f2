from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from rich.console import Console

from spikebench.report import (
    build_site,
    print_tables,
    speed_table,
    to_csv,
    to_latex,
    to_markdown,
    work_tables,
    write_report,
)
from spikebench.speed.record import write_speed_record
from tests.benchmark.speed.records import speed_record, timing

BASE = Path("work/report")
PATH = Path("work/speed-spikeformer-k0.json")


@pytest.fixture
def record():
    """Three rounds on a machine that slows down; the second contender is twice as fast, or more."""
    return speed_record(
        timing([[6.0], [8.0], [9.0]], neurons="peer-torch"),
        timing([[3.0], [2.0], [3.0, 3.0]], neurons="compiled", form="dense"),
        timing([[0.5], [0.5], [0.75]], subject="matmul"),
        timing([[9.0], [9.0], [9.0]], neurons="peer-torch", mode="train"),
        timing([], neurons="compiled", mode="train", error="RuntimeError: out of memory"),
        against="peer",
    )


def texts(table, row):
    return {column.key: column.text(table.rows[row].cells[column.key]) for column in table.columns}


def printed(tables, **options) -> str:
    console = Console(width=200, file=io.StringIO())
    print_tables(tables, console, **options)
    return console.file.getvalue()


def test_figures_are_worked_out_from_the_raw_times(record):
    table = speed_table([(PATH, record)])
    assert texts(table, 1) == {
        "backbone": "spikeformer",
        "work": "inference",
        "contender": "compiled, float32, dense",
        "time_steps": "4",
        "batch_size": "2",
        "image_size": "32",
        "images_per_second": "0.7273",  # 8 images in 11 s
        "latency_p50_s": "3000",
        "latency_p95_s": "3000",
        "peak_memory_bytes": "100",
        "working_memory_bytes": "40",
        "memory_share": "100.0",
        "speedup": "3.00 (2.00–4.00)",
        "over_floor": "0.50 (0.50–0.75)",  # floors of 4, 4 and 6 s
        "spikes_equal": "1.000000000",
        "device": "a processor, 2 threads",
    }
    assert [row.cells["work"] for row in table.rows] == ["inference", "inference", "training"]
    assert (texts(table, 2)["over_floor"], texts(table, 2)["spikes_equal"]) == ("–", "–")


def test_one_spike_in_a_thousand_million_shows(record):
    almost = record.timings[1].model_copy(update={"spikes_equal": 1 - 1e-9})
    changed = record.model_copy(update={"timings": [almost]})
    assert texts(speed_table([(PATH, changed)]), 0)["spikes_equal"] == "0.999999999"


def test_notes_say_what_ratios_are_to_and_what_failed(record):
    notes = speed_table([(PATH, record)]).notes
    assert "inference: speed and memory are relative to peer-torch, float32" in notes
    assert (
        "floor in float32: 4 s (4–6), 8e-06 GMACs at the 4e-06 GFLOP/s of a 10 matrix product"
        in notes
    )
    assert "mean firing rate: 0.2500" in notes
    assert "memory: resident; training step: SGD" in notes
    assert "failed: training, compiled, float32: RuntimeError: out of memory" in notes
    assert not any("bfloat16" in note for note in notes)


def test_every_rendering_holds_spread_record_and_notes(record):
    table = speed_table([(PATH, record)])
    markdown, latex = to_markdown(table, BASE), to_latex(table, BASE)
    assert "3.00 (2.00–4.00)" in markdown
    assert "[seed 0](../speed-spikeformer-k0.json)" in markdown
    assert "- mean firing rate: 0.2500" in markdown
    assert "3.00 (2.00--4.00)" in latex
    assert "% record: ../speed-spikeformer-k0.json" in latex
    assert "failed: training, compiled" in latex
    rows = list(csv.DictReader(io.StringIO(to_csv(table, BASE))))
    figures = [rows[1][name] for name in ("speedup", "speedup_low", "speedup_high")]
    assert figures == ["3.0", "2.0", "4.0"]
    assert rows[2]["over_floor"] == rows[2]["over_floor_high"] == ""
    assert rows[0]["latency_p50_s"] == "8.0"
    assert rows[0]["record"] == "../speed-spikeformer-k0.json"
    assert "mean firing rate" in printed([table])


def test_the_command_prints_one_table_for_each_work(record):
    tables = work_tables(PATH, record)
    assert [table.title for table in tables] == [
        "spikeformer: inference (T = 4, batch 2, 32x32 pixels, a processor, 2 threads)",
        "spikeformer: training (T = 4, batch 2, 32x32 pixels, a processor, 2 threads)",
    ]
    # what no row of it has is left out
    assert "over_floor" in {column.key for column in tables[0].columns}
    assert "over_floor" not in {column.key for column in tables[1].columns}
    shown = printed(tables, hidden=())
    assert shown.count("mean firing rate") == 1
    assert "p95 (ms)" in shown


def test_a_layer_alone_has_no_images(record):
    layer = timing([[0.25]], neurons="peer-torch", subject="lif")
    [table] = work_tables(PATH, record.model_copy(update={"timings": [layer]}))
    assert "LIF inference (T = 4, batch 2, maps of 128x56x56, a processor" in table.title
    whole = speed_table([(PATH, record.model_copy(update={"timings": [layer]}))])
    assert (texts(whole, 0)["image_size"], texts(whole, 0)["images_per_second"]) == ("–", "–")
    assert texts(whole, 0)["latency_p50_s"] == "250.0"


def test_where_all_failed_there_is_no_table():
    record = speed_record(timing([], error="no"))
    assert work_tables(PATH, record) == []
    table = speed_table([(PATH, record)])
    assert table.rows == ()
    assert "failed: inference, reference, float32: no" in table.notes


def test_the_newest_record_of_a_measurement_counts(record):
    older = record.model_copy(update={"started": "2024-01-01T00:00:00+00:00"})
    table = speed_table([(PATH, record), (Path("old/speed-x.json"), older), (PATH, record)])
    assert {source.path for row in table.rows for source in row.sources} == {PATH}
    assert table.notes[-1] == "left out, as a newer record exists: speed-x.json"


def test_a_report_of_both_kinds_holds_both(make_record, record, tmp_path):
    write_speed_record(record, tmp_path)
    only = write_report(tmp_path)
    assert [table.name for table in only.tables if table.rows] == ["speed"]
    assert "## Speed" in (tmp_path / "report" / "report.md").read_text()
    (tmp_path / "classification.json").write_text(make_record().model_dump_json())
    both = write_report(tmp_path)
    assert [table.name for table in both.tables if table.rows] == ["accuracy", "energy", "speed"]
    (tmp_path / "speed-spikeformer-k0.json").unlink()
    assert "speed" not in {table.name for table in write_report(tmp_path).tables}


def test_on_the_page_every_figure_leads_to_its_record(make_record, record, tmp_path):
    write_speed_record(record, tmp_path)
    (tmp_path / "classification.json").write_text(make_record().model_dump_json())
    html = build_site([tmp_path], tmp_path / "site").read_text(encoding="utf-8")
    board = html.split('id="task-speed"')[1].split("</section>")[0]
    # per row: images/s, p50, p95, peak, above model, memory, times as fast; inference also times
    # the floor and spikes equal
    assert board.count('href="#speed-k0"') == 7 + 2 * 9
    assert 'data-value="3.0"' in board
    assert "mean firing rate: 0.2500" in board
    assert "spikes equal</dt>" in html
    assert html.count('id="speed-k0"') == html.count('id="record-k0"') == 1
    assert "speed, a processor, 2 threads, T = 4, batch 2, 32 pixels" in html


def test_without_speed_records_the_page_says_nothing_of_speed(make_record, tmp_path):
    (tmp_path / "classification.json").write_text(make_record().model_dump_json())
    html = build_site([tmp_path], tmp_path / "site").read_text(encoding="utf-8")
    assert "spikes equal" not in html
    assert 'id="task-speed"' not in html

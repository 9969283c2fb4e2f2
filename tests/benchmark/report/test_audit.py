from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from spikebench.energy.audit import audit
from spikebench.report.audit import (
    AuditRecord,
    AuditSettings,
    form_tables,
    print_audit,
    rate_table,
    structural_name,
    write_audit,
)
from spikebench.results import RecordError, read_as
from tests.benchmark.energy.reports import neurons, norm, operation, product, report

STEM = operation("stem", "real", rate=1.0, encodes=True)
PW = [operation(f"stages.{stage}.blocks.0.pw2", "real", dense_macs=200.0) for stage in range(2)]
QKV = [
    product(
        f"blocks.{block}.qkv",
        "binary",
        "integer",
        rate=rate,
        dense_macs=macs,
        other_value_range=(0.0, highest),
        other_magnitude=2.0,
    )
    for block, rate, macs, highest in ((0, 0.5, 300.0, 9.0), (1, 0.1, 100.0, 12.0))
]
NORMS = [norm("stages.0.norm", 10.0), norm("stages.1.norm", 20.0), norm("norm", 70.0)]
LAYERS = [
    neurons("stages.0.lif", [0.1, 0.30000000000000004]),
    neurons("stages.1.lif", [0.0, 0.0]),
    neurons("lif", [1.0, 1.0]),
]


@pytest.fixture
def record() -> AuditRecord:
    """A model whose two real-valued convolutions are fused in the paper's form."""
    coded = report(STEM, *PW, *QKV, uncounted=NORMS, neurons=LAYERS)
    moved = [LAYERS[0].model_copy(update={"rate": 0.2005}), *LAYERS[1:]]
    paper = report(STEM, *QKV, neurons=moved, form="paper")
    return AuditRecord(
        settings=AuditSettings(
            backbone_name="former",
            options={"depths": [1, 1]},
            time_steps=2,
            image_size=32,
            num_classes=10,
            images="squares",
            weights="former.pth",
            weights_sha256="ab" * 32,
        ),
        reports=[coded, paper],
        device="a processor",
        started="2025-01-01T00:00:00+00:00",
    )


def texts(table):
    return [[column.text(row.cells[column.key]) for column in table.columns] for row in table.rows]


@pytest.mark.parametrize(
    ("name", "structural"),
    [
        ("stages.2.blocks.5.sep_conv.pw2.conv", "stages.*.blocks.*.sep_conv.pw2.conv"),
        ("stages.3.blocks.0.attn.q.conv.1", "stages.*.blocks.*.attn.q.conv.1"),
        ("features.14", "features.*"),
        ("layer1.0.conv1", "layer1.*.conv1"),
        ("attn.matmul_1", "attn.matmul_1"),
        ("head", "head"),
        ("", ""),
    ],
)
def test_names_of_repeated_blocks_read_alike(name, structural):
    assert structural_name(name) == structural


def test_rows_of_repeated_blocks_are_one_line_with_their_share(record):
    """The dense work is 100 + 400 + 400 of rows, and 100 of norms."""
    multiplied, integers, unseen, uncounted = form_tables(audit(record.reports[0]))
    assert texts(multiplied) == [
        ["stages.*.blocks.*.pw2", "2", "conv2d", "real", "40.00", ""],
        ["stem", "1", "conv2d", "real", "10.00", "encoding, exempt"],
    ]
    assert texts(integers) == [
        [
            *("blocks.*.qkv", "2", "matmul", "binary x integer", "0 to 12"),
            *("0.4000", "40.00", "added where the other operand fires"),
        ]
    ]
    assert unseen.rows == ()
    assert texts(uncounted) == [
        ["aten::batch_norm", "3", "elementwise", "stages.*.norm and 1 more", "10.00"]
    ]
    assert [table.title.split(": ")[0] for table in (multiplied, uncounted)] == ["as-coded"] * 2


def test_what_reads_otherwise_is_another_line():
    rows = [
        operation("a.0", "integer", magnitude=2.5, value_range=(0.0, 4.5)),
        operation("a.1", "integer", encodes=True),
        operation("a.2", "integer", magnitude=1.5, value_range=(-3.0, 4.0), dense_macs=300.0),
        operation("a.3", "real"),
        operation("a.4", "real", kind="linear"),
        operation("a.5", rate=0.0, dense_macs=200.0),
        operation("a.6", "real", encodes=True),
    ]
    multiplied, integers, unseen, _ = form_tables(audit(report(*rows)))
    assert [(row[0], row[2], row[3], row[5]) for row in texts(multiplied)] == [
        ("a.3", "conv2d", "real", ""),
        ("a.4", "linear", "real", ""),
        ("a.1", "conv2d", "integer", "encoding, exempt"),
        ("a.6", "conv2d", "real", "encoding, exempt"),
    ]
    assert texts(integers) == [
        ["a.*", "2", "conv2d", "integer", "-3 to 4.5", "1.750", "40.00", "n is added n times"],
        ["a.1", "1", "conv2d", "integer", "–", "–", "10.00", "multiplied"],
    ]
    assert [row[0] for row in texts(unseen)] == ["a.5"]


def test_what_has_no_rule_is_named_where_it_runs():
    parts = [
        norm("blocks.0.rnn", None, operation="aten::lstm", reason="no rule"),
        norm("blocks.1.rnn", None, operation="aten::lstm", reason="no rule"),
        norm("top", 5.0, operation="aten::lstm", reason="no rule"),
        norm("norm", 95.0),
    ]
    *_, uncounted = form_tables(audit(report(operation("conv"), uncounted=parts)))
    assert texts(uncounted) == [
        ["aten::lstm", "2", "no rule", "blocks.*.rnn", "–"],
        ["aten::batch_norm", "1", "elementwise", "norm", "47.50"],
        ["aten::lstm", "1", "no rule", "top", "2.500"],
    ]


def test_firing_rates_stand_by_layer_and_time_step(record):
    table = rate_table(record.reports)
    assert [column.title for column in table.columns[2:]] == ["mean (%)", "t = 1 (%)", "t = 2 (%)"]
    assert texts(table) == [
        ["stages.0.lif", "LIF", "20.00", "10.00", "30.00"],
        ["stages.1.lif", "LIF", "0.00", "0.00", "0.00"],
        ["lif", "LIF", "100.00", "100.00", "100.00"],
    ]
    assert table.notes == (
        "Mean rates of the other forms differ by at most 0.05 percentage points.",
    )
    assert rate_table(record.reports[:1]).notes == ()


def test_time_steps_that_cannot_be_told_apart_have_no_column():
    known = neurons("a", [0.1, 0.2])
    unknown = known.model_copy(update={"name": "b", "rates": []})
    assert texts(rate_table([report(neurons=[known, unknown])]))[1][2:] == ["15.00", "–", "–"]
    alone = rate_table([report(neurons=[unknown])])
    assert [column.key for column in alone.columns] == ["layer", "kind", "rate"]


def test_the_terminal_shows_verdicts_tables_rates_and_extremes(record):
    console = Console(width=200, file=io.StringIO())
    print_audit(record, console)
    shown = console.file.getvalue()
    coded, paper = record.audits
    order = [
        f"as-coded: {coded.verdict}",
        "stages.*.blocks.*.pw2",
        "blocks.*.qkv",
        f"paper: {paper.verdict}",
        "as-coded: firing rates",
        "silent (rate 0): stages.1.lif",
        "saturated (rate 1): lif",
    ]
    places = [shown.find(text) for text in order]
    assert -1 not in places
    assert places == sorted(places)


def test_files_hold_everything_and_come_back_from_the_record(record, tmp_path: Path):
    written = write_audit(record, tmp_path / "a")
    assert [path.name for path in written] == [
        "audit.json",
        "audit.md",
        "operations.csv",
        "firing_rates.csv",
        "firing_rates.png",
    ]
    again = write_audit(read_as(AuditRecord, written[0]), tmp_path / "b")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in written]


def test_operations_at_full_precision(record, tmp_path: Path):
    third = operation("third", dense_macs=1 / 3, rates=[0.1, 0.2 + 0.1], value_range=(0.0, 1.0))
    changed = record.model_copy(update={"reports": [report(third), *record.reports]})
    write_audit(changed, tmp_path)
    with (tmp_path / "operations.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["form"], row["name"]) for row in rows] == [
        (one.form, row.name) for one in changed.reports for row in one.rows
    ]
    first, qkv = rows[0], rows[-1]
    assert float(first["dense_macs"]) == 1 / 3
    assert first["rates"] == "0.1;0.30000000000000004"
    assert (first["value_range_low"], first["value_range_high"]) == ("0.0", "1.0")
    assert (first["other_rate"], first["other_value_range_low"]) == ("", "")
    assert (qkv["other_value_range_high"], qkv["accumulations"]) == ("12.0", "0.1")
    assert rows[1]["accumulations"] == ""


def test_rates_of_all_forms_at_full_precision(record, tmp_path: Path):
    write_audit(record, tmp_path)
    with (tmp_path / "firing_rates.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["form"] for row in rows] == ["as-coded"] * 3 + ["paper"] * 3
    assert rows[0]["name"] == "stages.0.lif"
    assert (rows[0]["rate_t1"], rows[0]["rate_t2"]) == ("0.1", "0.30000000000000004")
    assert (rows[3]["rate"], rows[3]["rate_std"]) == ("0.2005", "")


def test_the_page_in_markdown(record, tmp_path: Path):
    write_audit(record, tmp_path)
    page = (tmp_path / "audit.md").read_text(encoding="utf-8")
    assert page.startswith("# Spike-driven check: former (T = 2, 2 images, 32x32 pixels)\n")
    assert "- weights: former.pth\n- options: depths=[1, 1]\n" in page
    for found in record.audits:
        assert f"| {found.report.form} | {found.verdict} |" in page
    assert r"| stages.\*.blocks.\*.pw2 | 2 | conv2d | real | 40.00 |" in page
    assert "| stages.1.lif | LIF | 0.00 | 0.00 | 0.00 |" in page
    assert "- silent (rate 0): stages.1.lif\n- saturated (rate 1): lif\n" in page
    assert "![Firing rates](firing_rates.png)" in page
    assert "only zeros" not in page  # no empty table
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in tables)


def test_a_single_image_is_called_one(record):
    single = record.model_copy(update={"reports": [report(STEM, images=1)]})
    assert single.title == "former (T = 2, 1 image, 32x32 pixels)"


def test_without_neurons_there_are_no_rates(record, tmp_path: Path):
    write_audit(record, tmp_path)
    plain = record.model_copy(update={"reports": [report(STEM, neurons=[])]})
    assert [path.name for path in write_audit(plain, tmp_path)][-1] == "firing_rates.csv"
    assert not (tmp_path / "firing_rates.png").exists()
    page = (tmp_path / "audit.md").read_text()
    assert "no spiking neurons: every operation multiplies" in page
    assert "| stem | 1 | conv2d | real | 100.0 |  |" in page
    assert "silent" not in page
    assert "png" not in page
    assert (tmp_path / "firing_rates.csv").read_text().count("\n") == 1


def test_a_file_that_is_no_audit_is_one_clear_error(record, tmp_path: Path):
    path = write_audit(record, tmp_path)[0]
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "schema_version": 99}))
    with pytest.raises(RecordError, match=r"audit\.json.*schema"):
        read_as(AuditRecord, path)


def test_a_report_needs_no_torch_and_draws_only_when_asked():
    code = (
        "import sys, spikebench.report.audit; "
        "print([n for n in ('torch', 'matplotlib', 'rich') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

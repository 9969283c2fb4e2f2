import csv
import io
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from spikebench.report import make_tables, print_tables, to_csv, to_latex, to_markdown, write_report
from spikebench.report.columns import SeedValues
from spikebench.results import MissingResultsError

BASE = Path("work/report")
AWKWARD = r"a_b|c%d&e#f$g{h}i~j^k\l<m>*[n]"


def table(pairs, name):
    return next(table for table in make_tables(pairs) if table.name == name)


def texts(table, row=0):
    return {column.key: column.text(table.rows[row].cells[column.key]) for column in table.columns}


def csv_rows(table):
    return list(csv.DictReader(io.StringIO(to_csv(table, BASE))))


def test_a_single_run_shows_its_figures(make_record, pairs):
    record = make_record(metrics={"top1": 0.77183, "top5": 0.9})
    assert texts(table(pairs(record), "accuracy")) == {
        "backbone": "spikeformer",
        "parameters": "15.08",
        "time_steps": "4",
        "dataset": "digits",
        "split": "test",
        "test_images": "360",
        "protocol": "digits_small",
        "seeds": "1",
        "top1": "77.18",
        "top5": "90.00",
    }


def test_several_views_of_an_image_are_counted_and_no_seeds_of_one(make_record, pairs):
    one = make_record("k0", seed=0, energy={"rate-45nm": 5.5})
    several = make_record("k1", seed=1, energy={"rate-45nm": 16.5})
    images = several.operations.images
    several = several.model_copy(
        update={
            "views": 3,
            "operations": several.operations.model_copy(update={"images": 3 * images}),
        }
    )
    records = pairs(one, several)
    assert [texts(table(records, "accuracy"), row)["protocol"] for row in (0, 1)] == [
        "digits_small",
        "digits_small, 3 views",
    ]
    energy = [texts(table(records, "energy"), row) for row in (0, 1)]
    assert [row["dense_macs"] for row in energy] == ["2.500", "7.500"]
    assert [row["synaptic_operations"] for row in energy] == ["2.500", "7.500"]
    assert energy[0]["firing_rate"] == energy[1]["firing_rate"]
    assert {row.get("counted_images") for row in csv_rows(table(records, "energy"))} == {
        str(images)
    }


def test_energy_covers_all_tasks_and_estimators(make_record, pairs):
    made = table(
        pairs(
            make_record("k0", energy={"rate-45nm": 5.5}),
            make_record("k1", task="detection", metrics={"box_map": 0.4}, energy={"other": 0.0125}),
        ),
        "energy",
    )
    first, second = texts(made, 0), texts(made, 1)
    assert (first["task"], second["task"]) == ("classification", "detection")
    assert first["dense_macs"] == "2.500"
    assert first["synaptic_operations"] == "2.500"  # 2.5 G MACs, a quarter of them, 4 steps
    assert first["firing_rate"] == "18.75"  # the mean of 25 % and 12.5 %
    assert first["counted_images"] == "64"
    assert (first["energy_mj_rate-45nm"], first["energy_mj_other"]) == ("5.500", "–")
    assert (second["energy_mj_rate-45nm"], second["energy_mj_other"]) == ("–", "0.01250")


def test_seeds_are_merged_into_mean_and_sample_deviation(make_record, pairs):
    records = [make_record(f"k{s}", seed=s, metrics={"top1": 0.7 + 0.01 * s}) for s in (2, 0, 1)]
    made = table(pairs(*records), "accuracy")
    assert len(made.rows) == 1
    assert texts(made)["top1"] == "71.00 ± 1.00 (3)"
    assert texts(made)["parameters"] == "15.08"
    assert [source.record.seed for source in made.rows[0].sources] == [0, 1, 2]


def test_a_figure_that_some_seeds_lack_says_how_many_hold_it(make_record, pairs):
    with_top5 = make_record("k0", metrics={"top1": 0.7, "top5": 0.9})
    without = make_record("k1", seed=1, metrics={"top1": 0.8})
    assert texts(table(pairs(with_top5, without), "accuracy"))["top5"] == "90.00 (1 of 2)"


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": "other"},
        {"time_steps": 1},
        {"protocol": "other"},
        {"dataset": "other"},
        {"parameters": 7},
        {"arguments": {"dim": 64}},
        {"partial": True},
    ],
)
def test_only_seeds_of_one_experiment_are_merged(make_record, pairs, change):
    records = pairs(make_record("k0", seed=0), make_record("k1", seed=1, **change))
    assert [len(row.sources) for row in table(records, "accuracy").rows] == [1, 1]


def test_one_seed_twice_is_not_a_mean(make_record, pairs):
    records = pairs(make_record("aa", config={"lr": 1}), make_record("bb", config={"lr": 2}))
    made = table(records, "accuracy")
    labels = [row.cells["backbone"] for row in made.rows]
    assert labels == ["spikeformer #aa", "spikeformer #bb"]


def test_arguments_tell_alike_rows_apart(make_record, pairs):
    records = pairs(
        make_record("k0", arguments={"dim": 64, "depth": 4}),
        make_record("k1", arguments={"dim": 96, "depth": 4}),
    )
    labels = [row.cells["backbone"] for row in table(records, "accuracy").rows]
    assert labels == ["spikeformer dim=64", "spikeformer dim=96"]


def test_the_newest_finished_record_of_a_run_counts(make_record):
    old = make_record("k0", metrics={"top1": 0.1})
    new = make_record("k0", metrics={"top1": 0.2}, started="2025-02-01T00:00:00+00:00")
    failed = make_record("k0", error="no", started="2025-03-01T00:00:00+00:00")
    records = [
        (Path(f"work/{name}/record.json"), r)
        for name, r in zip("abc", (old, new, failed), strict=True)
    ]
    made = table(records, "accuracy")
    assert texts(made)["top1"] == "20.00"
    assert not made.failures
    text = to_markdown(made, BASE)
    assert text.count("a newer record of the same run exists") == 2
    assert "(../a/record.json)" in text


def test_a_failed_run_is_listed_and_never_a_number(make_record, pairs):
    failed = make_record("k1", "broken", error="RuntimeError: out of memory\nmore").model_copy(
        update={"metrics": make_record().metrics}
    )
    made = table(pairs(make_record(), failed), "accuracy")
    assert [row.cells["backbone"] for row in made.rows] == ["spikeformer"]
    line = "failed: broken, digits_small, seed 0: RuntimeError: out of memory"
    assert f"- {line} ([record](../k1/record.json))" in to_markdown(made, BASE)
    assert line.replace("_", r"\_") in to_latex(made, BASE)
    row = csv_rows(made)[1]
    assert (row["status"], row["top1"], row["parameters"]) == ("failed", "", "")
    assert row["error"] == "RuntimeError: out of memory\nmore"


def test_a_traceback_is_told_by_its_last_line(make_record, pairs):
    trace = "Traceback (most recent call last):\n  File ...\nKeyError: 'x'\n"
    made = table(pairs(make_record(error=trace)), "accuracy")
    assert "seed 0: KeyError: 'x' (" in to_markdown(made, BASE)


def test_a_partial_run_is_marked(make_record, pairs):
    made = table(pairs(make_record(partial=True)), "accuracy")
    assert "| spikeformer (partial) |" in to_markdown(made, BASE)
    assert csv_rows(made)[0]["status"] == "partial"


def test_a_missing_figure_is_a_dash(make_record, pairs):
    records = pairs(
        make_record("k0", "a", metrics={"top1": 0.0, "top5": 0.5}),
        make_record("k1", "b", metrics={"top1": 0.5}, operations=None),
    )
    assert texts(table(records, "accuracy"), 0)["top1"] == "0.00"
    assert texts(table(records, "accuracy"), 1)["top5"] == "–"
    assert texts(table(records, "energy"), 1)["dense_macs"] == "–"
    assert csv_rows(table(records, "accuracy"))[1]["top5"] == ""


def test_preferred_metrics_come_first_and_others_follow(make_record, pairs):
    metrics = {"box_map_small": 0.1, "mask_map": 0.2, "box_map": 0.30449}
    made = table(pairs(make_record(task="detection", metrics=metrics)), "detection")
    keys = [column.key for column in made.columns if column.of_metric]
    assert keys == ["box_map", "mask_map", "box_map_small"]
    assert texts(made)["box_map"] == "30.4"


def test_a_task_of_someone_else_needs_no_code(make_record, pairs):
    record = make_record(task="depth_map", metrics={"delta1": 0.875, "latency": 12.5})
    made = table(pairs(record), "depth_map")
    assert made.title == "Depth map"
    titles = {column.title for column in made.columns if column.of_metric}
    assert titles == {"delta1 (%)", "latency (ms)"}
    assert texts(made)["latency"] == "12.50"


def test_a_task_cannot_write_over_another_table(make_record, pairs):
    made = make_tables(pairs(make_record(task="energy"), make_record("k1", task="../x/report")))
    names = [table.name for table in made]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[\w-]+", name) for name in names)


def test_a_metric_cannot_hide_another_column(make_record, pairs):
    made = table(pairs(make_record(task="x", metrics={"backbone": 0.5})), "x")
    assert texts(made)["backbone"] == "spikeformer"
    assert texts(made)["backbone_fraction"] == "50.00"


@pytest.mark.parametrize(
    ("value", "text"),
    [(52.4, "52.40"), (0.0032096, "0.003210"), (12345.6, "12346"), (0, "0"), (4e-7, "4.000e-07")],
)
def test_energies_show_four_digits(make_record, pairs, value, text):
    made = table(pairs(make_record(energy={"e": value})), "energy")
    assert texts(made)["energy_mj_e"] == text


def test_markdown_escapes_and_links(make_record, pairs):
    text = to_markdown(table(pairs(make_record("k 1", AWKWARD)), "accuracy"), BASE)
    row = text.splitlines()[4]
    assert r"a_b\|c%d\&e#f\$g{h}i\~j^k\\l\<m\>\*\[n\]" in row
    cells = re.split(r"(?<!\\)\|", row)
    assert len(cells) == len(text.splitlines()[2].split("|"))
    assert cells[-2].strip() == "[seed 0](../k%201/record.json)"


def test_csv_keeps_full_precision(make_record, pairs):
    values = [0.1 + 0.2, 1 / 3, 2 / 3]
    records = [make_record(f"k{s}", seed=s, metrics={"top1": v}) for s, v in enumerate(values)]
    row = csv_rows(table(pairs(*records), "accuracy"))[0]
    assert float(row["top1"]) == statistics.fmean(values)
    assert float(row["top1_std"]) == statistics.stdev(values)
    assert (row["parameters"], row["seeds"], row["seed"]) == ("15080000", "3", "0;1;2")
    assert row["record"] == "../k0/record.json;../k1/record.json;../k2/record.json"
    single = csv_rows(table(pairs(records[0]), "accuracy"))[0]
    assert (float(single["top1"]), single["top1_std"]) == (values[0], "")


def test_rows_of_one_data_set_stand_together(make_record, pairs):
    records = [
        make_record(f"{data}{name}", name, task="detection", dataset=data, metrics={"box_map": 0.5})
        for name in ("b", "a")
        for data in ("nuclei", "coco", "bccd")
    ]
    rows = table(pairs(*records), "detection").rows
    together = [(row.cells["dataset"], row.cells["backbone"]) for row in rows]
    assert together == [(data, name) for data in ("bccd", "coco", "nuclei") for name in "ab"]


def test_csv_quotes_awkward_names(make_record, pairs):
    name = 'a,"b"\nc'
    assert csv_rows(table(pairs(make_record(backbone=name)), "accuracy"))[0]["backbone"] == name


def test_latex_escapes_and_names_the_record(make_record, pairs):
    text = to_latex(table(pairs(make_record(backbone="a_b%c&d#e")), "accuracy"), BASE)
    comment = text.index("% record: ../k0/record.json")
    assert text.index(r"\midrule") < comment < text.index(r"a\_b\%c\&d\#e & 15.08 & 4 & digits")
    assert r"top-1 (\%)" in text


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed")
def test_latex_compiles(make_record, pairs, tmp_path):
    records = [
        make_record("k0", AWKWARD),
        make_record("k1", AWKWARD, seed=1),
        make_record("k2", "[x] é ✓ \x1b[1m", task="detection", metrics={"box_map": 0.5}),
        make_record("k3", "*", error="“no” – & \\undefined % 50 → 60"),
        make_record("k4", "wide " * 40, task="depth_%", metrics={"a_b": 0.5}),
    ]
    body = "\n".join(to_latex(table, BASE) for table in make_tables(pairs(*records)))
    document = (
        "\\documentclass{article}\\usepackage{booktabs,graphicx}\\begin{document}\n"
        f"{body}\n\\end{{document}}\n"
    )
    (tmp_path / "all.tex").write_text(document, encoding="utf-8")
    run = subprocess.run(
        ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "all.tex"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == 0, run.stdout.decode(errors="replace")[-2000:]
    assert b"Overfull \\hbox" not in run.stdout


def test_write_report_writes_every_table(make_record, store):
    store.put(make_record("k0"))
    store.put(make_record("k1", task="depth", metrics={"rmse": 0.5}))
    store.put(make_record("k2", task="detection", error="RuntimeError: no"))
    report = write_report(store.root)
    names = {path.name for path in (store.root / "report").iterdir()}
    stems = ["accuracy", "depth", "detection", "energy"]
    tables = {f"{stem}.{end}" for stem in stems for end in ("md", "csv", "tex")}
    assert names == tables | {
        "by_time_steps.csv",
        "classes.csv",
        "energy_parts.csv",
        "report.md",
    }
    assert {path.name for path in report.paths} == names
    assert [table.name for table in report.tables] == stems
    assert "No finished run" in (store.root / "report" / "detection.md").read_text()
    whole = (store.root / "report" / "report.md").read_text()
    assert "## Accuracy" in whole
    assert "## Segmentation" not in whole


def test_links_hold_wherever_the_report_lies(make_record, store, tmp_path):
    path = store.put(make_record("k0"))
    out = tmp_path / "some" / "where"
    write_report(store.root, out)
    link = re.search(r"\[seed 0\]\((.+)\)", (out / "accuracy.md").read_text()).group(1)
    assert (out / link).resolve() == path.resolve()


def test_no_record_at_all_says_what_to_run(tmp_path):
    with pytest.raises(MissingResultsError, match="spikebench run"):
        write_report(tmp_path)
    assert not (tmp_path / "report").exists()


def test_print_tables_takes_text_literally(make_record, pairs):
    console = Console(width=200, record=True, file=io.StringIO())
    records = pairs(make_record(backbone="[red]x[/]"), make_record("k1", "y", error="[bold]no"))
    print_tables(make_tables(records), console)
    text = console.export_text()
    assert "[red]x[/]" in text
    assert text.count("seed 0: [bold]no") == 1
    assert "Detection" not in text


def test_figures():
    assert SeedValues((0.1,)).mean == 0.1
    assert SeedValues((0.1, 0.1, 0.1), runs=3).mean == 0.1
    assert SeedValues((1.0, 3.0), runs=2).deviation == pytest.approx(2**0.5)
    assert SeedValues((1.0,)).deviation is None


def test_importing_reports_takes_in_no_heavy_package():
    code = (
        "import sys, spikebench.report; "
        "print([n for n in ('torch', 'plotly', 'matplotlib', 'rich') if n in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"

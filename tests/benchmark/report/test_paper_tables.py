import io
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from spikebench.papers.record import (
    write_reproduction_record,
)
from spikebench.report import (
    print_tables,
    to_latex,
    to_markdown,
    write_reproduction,
)
from tests.benchmark.report.paper_records import (
    BASE,
    EVIL,
    IMPLIED,
    LATEX_EVIL,
    build_record,
    build_row,
    found,
    lines,
    page,
    tables,
    texts,
)


def test_reported_and_measured_stand_side_by_side():
    [table] = tables(build_row())
    assert texts(table) == {
        "model": "spikeformer",
        "time_steps": "4",
        "params_m_reported": "15.1",  # as printed there, not 15.10
        "params_m_measured": "15.47",
        "params_m_difference": "+0.37 (+2.5%)",
        "energy_mj_reported": "16.7",
        "energy_mj_measured": "not here (1)",
        "top1_reported": "74.1",
        "top1_measured": "not here (2)",
        "dense_gmacs_measured": "6.47",
        "notes": "3",
    }
    assert table.numbered == (
        "not measurable here: no weights were given",
        "not measurable here: no folder data/imagenet/val",
        "source: Table 3",
    )
    assert "Parameters, measured: those of the model built here." in table.notes
    assert "Measured on a processor, 2 threads, 2026-11-23T00:00:00+00:00, at commit abc1234." in (
        table.notes
    )


@pytest.mark.parametrize("text", ["78.80", "3.90", "17", "17.0"])
def test_a_reported_figure_keeps_its_digits_everywhere(tmp_path, text):
    reported = {"params_m": "1.0", "energy_mj": text, "top1": text}
    row = build_row(reported=reported, energy_mj={"dense-45nm": 1.0}, **IMPLIED)
    shown = tables(row)
    assert texts(shown[0])["top1_reported"] == text
    assert [texts(table)["energy_mj_reported"] for table in shown] == [text] * 3
    for table in shown:
        assert f" {text} " in to_markdown(table, BASE)
        assert f" {text} " in to_latex(table, BASE)
    assert f">{text}</td>" in page(build_record(row), tmp_path)
    line = lines(row, folder=tmp_path)["spikeformer-t4", "top1", "", ""]
    assert line["reported"] == text


def test_a_figure_seen_in_a_source_that_nobody_noted_says_so(tmp_path):
    seen = build_row(source=None, unverified=("energy_mj",))
    memory = build_row("other", source=None, unverified=("params_m", "energy_mj", "top1"))
    [table] = tables(seen, memory)
    assert table.numbered[-1] == "source not recorded"
    assert texts(table, 0)["notes"] == str(len(table.numbered))
    assert texts(table, 1)["notes"] == "–"


@pytest.mark.parametrize(
    ("name", "reported", "value", "text"),
    [
        ("params_m", 20.0, 15.0, "−5.00 (−25.0%)"),
        ("params_m", 15.001, 15.0, "0.00 (0.0%)"),
        ("params_m", 0.0, 15.0, "+15.00"),
        # a share of a percentage would mislead
        ("top1", 74.1, 73.85, "−0.2"),
    ],
)
def test_a_difference_is_measured_less_reported(name, reported, value, text):
    row = build_row(reported={name: reported}, measured={name: found(value)})
    assert texts(tables(row)[0])[f"{name}_difference"] == text


def test_an_unverified_figure_is_shown_as_such_everywhere(tmp_path):
    row = build_row(unverified=("energy_mj",), **IMPLIED)
    comparison, rates = tables(row)
    note = "† and italics: reported, but from memory, unverified."
    for table in (comparison, rates):
        assert texts(table)["energy_mj_reported"] == "16.7†"
        assert table.notes[0] == note
        assert "| *16.7*† |" in to_markdown(table, BASE)
        assert r"& \textit{16.7}\dag{} &" in to_latex(table, BASE)
        assert r"\dag{} and italics: reported" in to_latex(table, BASE)
    # what is solved from it is no better
    assert "| *0.308*† |" in to_markdown(rates, BASE)
    assert texts(comparison)["params_m_reported"] == "15.1"
    shown = page(build_record(row), tmp_path)
    assert re.findall("<em[^>]*>([^<]*)</em>", shown) == [
        *("16.7†", "16.7†"),
        *("1.250 (impossible)†", "1.000†", "0.308†"),
    ]
    assert note in shown
    by_key = lines(row, folder=tmp_path)
    verified = {key[1:3]: line["verified"] for key, line in by_key.items()}
    assert verified["energy_mj", ""] == verified["mean_rate", "paper"] == "no"
    assert verified["params_m", ""] == "yes"
    assert verified["dense_gmacs", "paper"] == ""


def test_where_all_is_verified_nothing_speaks_of_memory():
    markdown = to_markdown(tables(build_row())[0], BASE)
    assert "†" not in markdown
    assert "memory" not in markdown


def test_what_was_measured_leads_to_the_record(tmp_path):
    text = to_markdown(tables(build_row())[0], Path("elsewhere/tables"))
    assert "| 15.1 | [15.47](../../work/table.json) | +0.37 (+2.5%) | 16.7 | not here (1) |" in text
    assert "\n1. not measurable here: no weights were given\n" in text
    assert "% record: table.json\n" in to_latex(tables(build_row())[0], BASE)
    line = lines(build_row(), folder=tmp_path)["spikeformer-t4", "params_m", "", ""]
    assert line["record"] == "imagenet.json"


def test_figures_measured_differently_say_how_one_by_one():
    ann = {"energy_mj": found(80.79, "an ANN's operations")}
    snn = {"energy_mj": found(12.5, "on 8 images")}
    [table] = tables(build_row(measured=snn), build_row("deit_b", 1, measured=ann, spiking=False))
    assert texts(table, 0)["energy_mj_measured"] == "12.50 (1)"
    assert texts(table, 1)["energy_mj_measured"] == "80.79 (3)"
    assert table.numbered[0] == "measured: on 8 images"
    assert table.numbered[2] == "measured: an ANN's operations"
    assert not any("Energy, measured" in note for note in table.notes)


def test_one_reason_has_one_number():
    table = tables(build_row(), build_row("other", note="as above", details={"size": "288"}))[0]
    assert texts(table, 1)["energy_mj_measured"] == "not here (1)"
    assert (texts(table, 0)["notes"], texts(table, 1)["notes"]) == ("3", "3, 4")
    assert texts(table, 1)["details"] == "size: 288"
    assert table.numbered[3] == "as above"


def test_an_ann_is_named_and_implies_no_rate():
    ann = build_row("deit_b", 1, spiking=False, energy_mj={"dense-45nm": 80.79})
    comparison, rates, energies = tables(build_row(**IMPLIED), ann)
    assert texts(comparison, 1)["model"] == "deit_b (ANN)"
    assert [row.cells["model"] for row in rates.rows] == ["spikeformer"]
    assert texts(energies) == {
        "model": "deit_b (ANN)",
        "time_steps": "1",
        "energy_mj_reported": "16.7",
        "estimated_mj_dense-45nm": "80.79",
    }
    note = (
        "ANN: counted with random weights, so only by estimators that charge every multiply-"
        "accumulate, whatever it reads."
    )
    assert note in energies.notes
    spiking = build_row(**IMPLIED, energy_mj={"exact-45nm": 1.0})
    assert note not in tables(spiking)[2].notes


def test_implied_rates_tell_which_form_can_be():
    _, rates = tables(build_row(**IMPLIED), build_row("other", measured={}))
    shown = texts(rates)
    assert shown["energy_mj_reported"] == "16.7"
    assert shown["dense_gmacs_paper"] == "14.89"
    assert shown["implied_rates_as-coded"] == "1.250 (impossible)"
    assert shown["implied_rates_dense"] == "1.000"
    assert shown["implied_rates_paper"] == "0.308"
    assert "measured_rates_paper" not in shown
    assert len(rates.rows) == 1
    assert "Not in this table, for want of a count: 1 of 2 rows." in rates.notes
    assert any("have no rate above 1 or below 0" in note for note in rates.notes)


@pytest.mark.parametrize(
    ("rate", "time_steps", "impossible"),
    [(-0.01, 4, True), (1.0, 4, False), (1.01, 4, True), (1.01, "1x4", False), (-1, "1x4", True)],
)
def test_only_spikes_that_count_further_pass_a_rate_of_one(rate, time_steps, impossible):
    row = build_row(time_steps=time_steps, implied_rates={"paper": rate})
    assert ("impossible" in texts(tables(row)[1])["implied_rates_paper"]) == impossible


def test_with_weights_energies_and_rates_are_shown_beside():
    energy = {"exact-45nm": 0.0123456, "mine": 5.0}
    row = build_row(**IMPLIED, energy_mj=energy, measured_rates={"paper": 0.2501})
    _, rates, energies = tables(row, images="8 images of digits")
    shown = texts(energies)
    assert (shown["estimated_mj_exact-45nm"], shown["estimated_mj_mine"]) == ("0.01235", "5.000")
    assert texts(rates)["measured_rates_paper"] == "0.250"
    assert "exact-45nm: exact synaptic operations, as coded." in energies.notes
    for table in (rates, energies):
        assert "Energies and rates were counted on 8 images of digits." in table.notes


def test_without_energies_there_is_one_table():
    assert [table.name for table in tables(build_row())] == ["imagenet"]


def test_markdown_escapes(tmp_path):
    row = build_row(LATEX_EVIL, note=EVIL, details={"a|b": "*c*"})
    text = to_markdown(tables(row)[0], BASE)
    heads, _, cells = (re.split(r"(?<!\\)\|", line) for line in text.splitlines()[2:5])
    assert len(heads) == len(cells)
    assert cells[1].strip().startswith(r"a_b\|c%d\&e#f\$g{h}i\~j^k\\l\<m\>\*\[n\]")
    assert cells[2].strip() == r"a\|b: \*c\*"
    assert "<img" not in text.replace(r"\<", "")


def test_latex_has_shared_headings_and_notes_below():
    text = to_latex(tables(build_row())[0], BASE)
    heads = text.splitlines()
    groups = next(line for line in heads if r"\multicolumn{3}{c}{Parameters (M)}" in line)
    assert groups.count("multicolumn") == 7  # model, T, three figures, MACs, notes
    assert r"\cmidrule(lr){3-5} \cmidrule(lr){6-7} \cmidrule(lr){8-9}" in text
    assert r"not here\textsuperscript{1}" in text
    after = text.split(r"\end{table}")[1]
    assert r"\textbf{Notes to Table~\ref{tab:imagenet}}" in after
    assert r"\textsuperscript{1}~not measurable here: no weights were given\par" in after


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed")
def test_latex_compiles_and_fits_the_page(tmp_path):
    address = "https://example.org/" + "a_long/path.with/many-parts/" * 8
    rows = [
        build_row(f"model_{n}", note=f"note {n} " * 9, unverified=("top1",), source=address)
        for n in range(27)
    ]
    rows.append(
        build_row(
            LATEX_EVIL,
            source=LATEX_EVIL,
            note="[x] --no --flags & 50 % of _it_",
            details={LATEX_EVIL: LATEX_EVIL},
            energy_mj={f"{LATEX_EVIL}-{n}": 1.0 for n in range(5)},
            **IMPLIED,
        )
    )
    record = build_record(*rows, table="image_net %", title=LATEX_EVIL, images=LATEX_EVIL)
    path = next(p for p in write_reproduction(tmp_path / "a.json", record) if p.suffix == ".tex")
    # two hyphens in a row would be set as a dash
    assert "-{}-no -{}-flags" in path.read_text(encoding="utf-8")
    document = (
        "\\documentclass{article}\\usepackage{booktabs,graphicx}\\begin{document}\n"
        f"\\input{{{path.name}}}\n\\end{{document}}\n"
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
    assert b"Float too large" not in run.stdout


def test_write_reproduction_writes_beside_the_record_or_elsewhere(tmp_path):
    record = build_record(build_row(**IMPLIED))
    path = write_reproduction_record(record, tmp_path)
    written = write_reproduction(path, record)
    assert [one.name for one in written] == [
        f"imagenet.{end}" for end in ("md", "csv", "tex", "html")
    ]
    assert {one.parent for one in written} == {tmp_path}
    text = written[0].read_text(encoding="utf-8")
    assert text.startswith("## ImageNet-1K: reported and measured\n")
    assert "## ImageNet-1K: firing rates that the reported energies imply" in text
    markdown = write_reproduction(path, record, tmp_path / "some" / "where")[0]
    link = re.search(r"\[15\.47\]\((.+?)\)", markdown.read_text(encoding="utf-8")).group(1)
    assert (markdown.parent / link).resolve() == path.resolve()


def test_files_stay_in_their_folder_whatever_the_table_is_called(tmp_path):
    record = build_record(build_row(), table="../x y%")
    written = write_reproduction(tmp_path / "a.json", record)
    assert {one.parent for one in written} == {tmp_path}
    assert all(re.fullmatch(r"[\w-]+\.\w+", one.name) for one in written)


def test_the_terminal_shows_the_tables_and_the_notes():
    console = Console(width=200, record=True, file=io.StringIO())
    print_tables(tables(build_row("[red]x[/]", unverified=("top1",), **IMPLIED)), console)
    text = console.export_text()
    assert "[red]x[/]" in text
    assert "+0.37 (+2.5%)" in text
    assert "74.1†" in text
    assert "1.250 (impossible)" in text
    assert "(1) not measurable here: no weights were given" in text

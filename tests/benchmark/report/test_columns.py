import csv
import io
from pathlib import Path

from spikebench.report import build_site, make_tables, to_csv, to_latex, to_markdown
from spikebench.report.cells import AnnotatedValue

BASE = Path("work/report")


def energy(pairs):
    return next(table for table in make_tables(pairs) if table.name == "energy")


def texts(table, row=0):
    return {column.key: column.text(table.rows[row].cells[column.key]) for column in table.columns}


def test_energy_that_nobody_measured_is_not_zero(make_record, pairs):
    made = energy(pairs(make_record()))
    assert made.columns[-1].title == "measured (mJ)"
    assert texts(made)["measured_energy_mj"] == "not measured"
    assert "| not measured |" in to_markdown(made, BASE)
    assert r"& not measured \\" in to_latex(made, BASE)
    row = next(csv.DictReader(io.StringIO(to_csv(made, BASE))))
    assert row["measured_energy_mj"] == "not measured"


def test_each_meter_has_a_column(make_record, pairs):
    made = energy(
        pairs(
            make_record("k0", "a", measured_energy_mj={"gpu 0": 1 / 3}),
            make_record("k1", "b", measured_energy_mj={"cpu": 0.0, "gpu 0": 2.0}),
            make_record("k2", "c"),
        )
    )
    titles = {c.key: c.title for c in made.columns if c.key.startswith("measured")}
    assert titles == {
        "measured_energy_mj_gpu 0": "measured, gpu 0 (mJ)",
        "measured_energy_mj_cpu": "measured, cpu (mJ)",
    }
    shown = [(texts(made, n)["measured_energy_mj_gpu 0"]) for n in range(3)]
    assert shown == ["0.3333", "2.000", "not measured"]
    assert [texts(made, n)["measured_energy_mj_cpu"] for n in range(3)] == [
        *("not measured", "0", "not measured")
    ]
    rows = list(csv.DictReader(io.StringIO(to_csv(made, BASE))))
    assert float(rows[0]["measured_energy_mj_gpu 0"]) == 1 / 3


def test_seeds_of_a_measured_energy_are_averaged(make_record, pairs):
    records = [
        make_record(f"k{seed}", seed=seed, measured_energy_mj={"gpu 0": 1.0 + seed})
        for seed in range(3)
    ]
    assert texts(energy(pairs(*records)))["measured_energy_mj_gpu 0"] == "2.000 ± 1.000 (3)"


def test_the_leaderboard_shows_meters_where_there_are_any(make_record, store, tmp_path):
    store.put(make_record("k0", "a"))
    page = build_site([store.root], tmp_path / "a.html").read_text(encoding="utf-8")
    assert "measured_energy_mj" not in page.split('<section id="records"')[0]
    store.put(make_record("k1", "b", measured_energy_mj={"gpu 0": 2.5}))
    page = build_site([store.root], tmp_path / "a.html").read_text(encoding="utf-8")
    assert 'data-value="2.5"><a href="#record-k1"' in page
    # no figure: it sorts last, and leads nowhere
    assert 'class="number" data-value="">not measured</td>' in page


def test_marked_cells():
    assert AnnotatedValue("74.1", 74.1).plain == "74.1"
    assert AnnotatedValue("not here", notes=(1, 3)).plain == "not here (1, 3)"
    assert AnnotatedValue("", notes=(1, 3)).plain == "1, 3"

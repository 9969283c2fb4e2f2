import csv
import io

import pytest

from spikebench.report import (
    to_csv,
)
from tests.benchmark.report.paper_records import (
    BASE,
    IMPLIED,
    build_row,
    found,
    lines,
    missing,
    tables,
)


def test_csv_is_at_full_precision(tmp_path):
    third = 1 / 3
    row = build_row(
        measured={"params_m": found(third), "energy_mj": missing("no meter")},
        **{**IMPLIED, "implied_rates": {"as-coded": 1.25, "paper": third}},
        energy_mj={"exact-45nm": third},
        measured_rates={"paper": third / 2},
        note="a note",
        details={"training": "distilled"},
    )
    by_key = lines(row, folder=tmp_path)
    params = by_key["spikeformer-t4", "params_m", "", ""]
    assert params["reported"] == "15.1"
    assert float(params["measured"]) == third
    assert float(params["difference"]) == third - 15.1
    assert float(params["relative_difference"]) == (third - 15.1) / 15.1
    assert (params["unit"], params["status"]) == ("M", "measured")
    assert params["reason"] == "those of the model built here"
    assert (params["source"], params["note"]) == ("Table 3", "a note")
    assert (params["details"], params["time_steps"]) == ("training: distilled", "4")
    assert params["spiking"] == "yes"
    energy = by_key["spikeformer-t4", "energy_mj", "", ""]
    assert (energy["reported"], energy["measured"], energy["difference"]) == ("16.7", "", "")
    assert (energy["status"], energy["reason"]) == ("not measurable here", "no meter")
    exact = by_key["spikeformer-t4", "energy_mj", "", "exact-45nm"]
    assert (float(exact["measured"]), exact["reported"]) == (third, "")
    rate = by_key["spikeformer-t4", "mean_rate", "paper", ""]
    assert (float(rate["implied"]), float(rate["measured"])) == (third, third / 2)
    assert (rate["reported"], rate["status"]) == ("", "measured")
    impossible = by_key["spikeformer-t4", "mean_rate", "as-coded", ""]
    assert (impossible["measured"], impossible["status"]) == ("", "implied by the reported energy")
    assert "impossible" in impossible["reason"]
    assert float(by_key["spikeformer-t4", "dense_gmacs", "paper", ""]["measured"]) == 14.89


@pytest.mark.parametrize("start", "=+-@\t\r")
def test_no_text_of_a_csv_file_is_a_formula(tmp_path, start):
    evil = f'{start}HYPERLINK("http://x")'
    row = build_row(
        evil,
        note=evil,
        source=evil,
        details={evil: evil},
        measured={"params_m": found(-1.0), "energy_mj": missing(evil)},
        energy_mj={evil: 1.0},
    )
    by_key = lines(row, folder=tmp_path)
    fields = [field for line in by_key.values() for field in line.values()]
    assert f"'{evil}" in fields
    numbers = {"measured", "difference", "relative_difference"}
    for line in by_key.values():
        for key, field in line.items():
            assert key in numbers or not field.startswith(tuple("=+-@\t\r")), key
    negative = by_key[f"'{evil}-t4", "params_m", "", ""]
    assert float(negative["measured"]) == -1.0
    table = tables(row)[0]
    assert next(csv.DictReader(io.StringIO(to_csv(table, BASE))))["model"] == f"'{evil}"

from __future__ import annotations

import re
from pathlib import Path

import pytest

from spikebench.papers.record import (
    FigureSpec,
    Measured,
    Reported,
    ReportedRow,
    ReproducedRow,
    Reproduction,
    write_reproduction_record,
)
from spikebench.results import RecordError, read_as

RECORD = Reproduction(
    table="mine",
    title="Mine",
    figures={"top1": FigureSpec(title="Top-1", unit="%", higher_is_better=True)},
    rows=[
        ReproducedRow(
            reported=ReportedRow(
                id="a",
                model="a",
                time_steps=4,
                figures={"top1": Reported(value=0.1, text="0.10", seen=False)},
            ),
            measured={"top1": Measured(value=None, status="not measurable here", reason="no data")},
            dense_gmacs={"as-coded": 1 / 3},
            implied_rates={"paper": 0.25},
        )
    ],
    device="cpu",
    started="2025-01-01T00:00:00+00:00",
)


class TestTheRecord:
    def test_it_is_read_as_it_was_written(self, tmp_path: Path):
        path = write_reproduction_record(RECORD, tmp_path / "new")
        assert path == tmp_path / "new" / "reproduction-mine.json"
        assert read_as(Reproduction, path) == RECORD
        assert [each.name for each in path.parent.iterdir()] == ["reproduction-mine.json"]

    def test_half_of_one_is_refused(self, tmp_path: Path):
        path = write_reproduction_record(RECORD, tmp_path)
        path.write_text(path.read_text()[:-10])
        with pytest.raises(RecordError, match="schema 1"):
            read_as(Reproduction, path)

    def test_a_figure_that_is_no_number_is_refused(self):
        with pytest.raises(ValueError, match="finite"):
            Reported(value=float("nan"), text="nan", seen=True)

    @pytest.mark.parametrize("text", ["0.2", "", "=0.1", "about 0.1"])
    def test_a_text_that_is_not_the_figure_is_refused(self, text: str):
        with pytest.raises(ValueError, match=re.escape(repr(text))):
            Reported(value=0.1, text=text, seen=True)

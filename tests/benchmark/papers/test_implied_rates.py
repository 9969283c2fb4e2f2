from __future__ import annotations

import pytest

from spikebench.energy.estimators import energies, implied_rate, load_estimators
from spikebench.energy.operations import OperationReport, OperationRow
from spikebench.energy.profile import profile_operations
from spikebench.images import sample_images
from spikebench.inference.deploy import in_form
from spikebench.papers.implied_rates import PAPER_ESTIMATOR, implied_rates, mean_rate
from spikebench.papers.operation_counts import RowCounter, RowCounts
from tests.benchmark.papers.rows import row, small_classifier

STEM_MACS = 16 * 16 * 4 * 3 * 7 * 7  # 16x16 positions, 4 filters, of 3 channels and 7x7


def operation(name: str, macs: float, rate: float, **keys) -> OperationRow:
    given = {"value_kind": "binary", "exact_synaptic_operations": 0.0, "rate": rate, **keys}
    return OperationRow(
        name=name, kind="linear", dense_macs=macs, dense_macs_unpadded=macs, **given
    )


class TestImpliedRates:
    @pytest.mark.parametrize("time_steps", [1, 4])
    def test_they_solve_the_papers_rule(self, write_table, time_steps: int):
        """E = 4.6 pJ x encoding + 0.9 pJ x T x rate x the rest."""
        table = write_table(row("a", time_steps=time_steps))
        counts = RowCounter(table)(table.rows[0], table.rows[0].build)
        rates = implied_rates(table.rows[0], counts)
        assert list(rates) == ["as-coded", "dense", "paper"]
        for form, rate in rates.items():
            rest = counts.reports[form].dense_macs - STEM_MACS
            picojoules = 4.6 * STEM_MACS + 0.9 * time_steps * rate * rest
            assert picojoules * 1e-9 == pytest.approx(0.01)

    def test_the_encoding_counts_once_however_often_a_form_runs_it(self, write_table):
        """Counted at T = 4, a model as coded encodes four times, and a deployed one once."""
        table = write_table(row("a", time_steps=4))
        model = small_classifier(time_steps=4)
        reports = {
            form: profile_operations(in_form(model, form), sample_images(1, 32), form=form)
            for form in ("as-coded", "dense", "paper")
        }
        at_4 = implied_rates(table.rows[0], RowCounts(0, 4, reports))
        at_1 = implied_rates(table.rows[0], RowCounter(table)(table.rows[0], table.rows[0].build))
        assert at_4 == pytest.approx(at_1)

    def test_there_are_none_without_a_reported_energy(self, write_table):
        table = write_table(row("a", seen={"top1": 1.0}))
        assert (
            implied_rates(table.rows[0], RowCounter(table)(table.rows[0], table.rows[0].build))
            == {}
        )

    def test_a_model_without_neurons_is_named(self, write_table, caplog):
        table = write_table(row("a"))
        report = OperationReport(images=1, time_steps=1, rows=[operation("fc", 1, 1, encodes=True)])
        counts = RowCounts(0, 1, {"as-coded": report})
        assert implied_rates(table.rows[0], counts) == {}
        assert "a: no neuron was recognised" in caplog.text


class TestTheMeanRate:
    def test_it_is_what_the_energy_of_spikes_implies(self):
        rows = [
            operation("stem", 50.0, 1.0, value_kind="real", encodes=True),
            operation("a", 100.0, 0.1),
            operation("b", 300.0, 0.5),
            operation("c", 100.0, 0.2, value_kind="integer", magnitude=0.9),
        ]
        report = OperationReport(form="paper", images=1, time_steps=4, rows=rows)
        energy = energies(report)[PAPER_ESTIMATOR]
        assert mean_rate(report) == pytest.approx((10 + 150 + 90) / 500)
        estimator = load_estimators()[PAPER_ESTIMATOR]
        assert implied_rate(report, energy, estimator) == pytest.approx(mean_rate(report))

    def test_of_real_values_it_is_the_share_that_is_not_zero(self):
        rows = [operation("a", 100.0, 0.1), operation("b", 100.0, 0.7, value_kind="real")]
        report = OperationReport(images=1, time_steps=1, rows=rows)
        assert mean_rate(report) == pytest.approx(0.4)

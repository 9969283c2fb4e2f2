from __future__ import annotations

import pytest

from spikebench.energy.profile import profile_operations
from spikebench.errors import UserError
from spikebench.images import sample_images
from spikebench.inference.deploy import in_form
from spikebench.papers import operation_counts
from spikebench.papers.operation_counts import RowCounter
from tests.benchmark.papers.rows import BUILD, row, small_classifier


class TestCounts:
    def test_they_are_those_of_the_model_in_each_form(self, write_table):
        table = write_table(row("a"))
        counts = RowCounter(table)(table.rows[0], table.rows[0].build)
        model = small_classifier()
        assert counts.parameters == sum(weight.numel() for weight in model.parameters())
        assert list(counts.reports) == ["as-coded", "dense", "paper"]
        for form, report in counts.reports.items():
            alone = profile_operations(in_form(model, form), sample_images(1, 32), form=form)
            assert report.dense_macs == alone.dense_macs
            assert report.form == form
        macs = [report.dense_macs for report in counts.reports.values()]
        assert macs[0] == macs[1] < macs[2]

    def test_rows_that_share_a_build_are_counted_once(self, write_table, monkeypatch):
        calls = []

        def counted(*arguments, **keys):
            calls.append(keys["form"])
            return profile_operations(*arguments, **keys)

        monkeypatch.setattr(operation_counts, "profile_operations", counted)
        rows = [row("a"), row("b", time_steps=4), row("c", image_size=48)]
        table = write_table(*rows)
        count = RowCounter(table)
        a, b, c = (count(each, each.build) for each in table.rows)
        assert a is b
        assert calls == ["as-coded", "dense", "paper"] * 2
        assert c.reports["as-coded"].dense_macs > a.reports["as-coded"].dense_macs

    def test_a_fused_row_has_one_form(self, write_table):
        fused = {"deploy": {"fuse": True}}
        table = write_table(row("a"), row("b", build={**BUILD, **fused}))
        whole, alone = (RowCounter(table)(each, each.build) for each in table.rows)
        assert list(alone.reports) == ["as-coded"]
        assert alone.reports["as-coded"].dense_macs == whole.reports["paper"].dense_macs
        assert alone.parameters > whole.parameters

    def test_a_size_that_the_model_does_not_take_is_named(self, write_table):
        table = write_table(row("a", image_size=30))
        with pytest.raises(UserError, match="a: .*30x30"):
            RowCounter(table)(table.rows[0], table.rows[0].build)

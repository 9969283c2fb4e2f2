import csv
import io
from pathlib import Path

import pytest

from spikebench.report import to_csv, write_report
from spikebench.report.details import detail_tables, record_details
from spikebench.report.grouping import select

BASE = Path("work/report")


@pytest.fixture
def make_detector(make_record):
    def make(key="k0", seed=0, factor=1.0, **changes):
        return make_record(
            key,
            task="detection",
            seed=seed,
            metrics={"box_map": 0.4},
            per_class={"box_map": {"cat": factor / 4, "dog": factor / 2}, "other": {"cat": 0.0}},
            energy_by_part={"rate-45nm": {"backbone": 3.0, "neck": factor}},
            **changes,
        )

    return make


def rows(records, name):
    tables = {table.name: table for table in detail_tables(select(records))}
    return list(csv.DictReader(io.StringIO(to_csv(tables[name], BASE))))


def test_a_row_for_each_class_and_metric(make_detector, pairs):
    found = rows(pairs(make_detector()), "classes")
    assert [(row["metric"], row["class"], float(row["value"])) for row in found] == [
        ("box_map", "cat", 0.25),
        ("box_map", "dog", 0.5),
        ("other", "cat", 0.0),
    ]
    about = ("detection", "spikeformer", "4", "digits", "test", "digits_small")
    for row in found:
        keys = ("task", "backbone", "time_steps", "dataset", "split", "protocol")
        assert tuple(row[key] for key in keys) == about
        assert (row["key"], row["record"], row["status"]) == ("k0", "../k0/record.json", "finished")


def test_a_row_for_each_part_with_its_share(make_detector, pairs):
    found = rows(pairs(make_detector()), "energy_parts")
    names = ("estimator", "part", "energy_mj", "share")
    assert [tuple(row[name] for name in names) for row in found] == [
        ("rate-45nm", "backbone", "3.0", "0.75"),
        ("rate-45nm", "neck", "1.0", "0.25"),
    ]


def test_a_row_for_each_number_of_time_steps(make_record, pairs):
    records = [
        make_record(f"k{seed}", seed=seed, by_time_steps={"top1": [0.25, 0.5 + seed / 4]})
        for seed in (0, 1)
    ]
    found = rows(pairs(*records), "by_time_steps")
    assert [(row["metric"], row["after"], float(row["value"])) for row in found] == [
        ("top1", "1", 0.25),
        ("top1", "2", 0.625),
    ]
    (table,) = record_details(records[0])
    assert table.title == "After time steps of one pass"
    assert [table.columns[1].text(row.cells["top1"]) for row in table.rows] == ["25.00", "50.00"]


def test_seeds_are_averaged(make_detector, pairs):
    records = pairs(make_detector(), make_detector("k1", seed=1, factor=0.5))
    cat = rows(records, "classes")[0]
    assert float(cat["value"]) == pytest.approx(0.1875)
    assert float(cat["value_std"]) == pytest.approx(0.125 / 2**0.5)
    assert cat["key"] == "k0;k1"
    neck = rows(records, "energy_parts")[1]
    assert float(neck["share"]) == pytest.approx((1 / 4 + 0.5 / 3.5) / 2)


def test_what_only_one_seed_has_is_not_lost(make_detector, pairs):
    other = make_detector("k1", seed=1).model_copy(update={"per_class": {"box_map": {"emu": 1.0}}})
    found = rows(pairs(make_detector(), other), "classes")
    assert [row["class"] for row in found] == ["cat", "dog", "cat", "emu"]
    assert [row["value_std"] for row in found] == [""] * 4


def test_parts_of_nothing_have_no_share(make_detector, pairs):
    record = make_detector().model_copy(update={"energy_by_part": {"none": {"a": 0.0, "b": 0.0}}})
    assert [row["share"] for row in rows(pairs(record), "energy_parts")] == ["", ""]


def test_a_record_without_details_has_none(make_record, pairs):
    assert rows(pairs(make_record()), "classes") == []
    assert record_details(make_record()) == []


def test_a_metric_in_a_unit_of_its_own_is_not_a_percentage(make_record):
    record = make_record(task="depth", metrics={"latency": 3.5}, per_class={"latency": {"a": 12.5}})
    (table,) = record_details(record)
    assert [column.title for column in table.columns] == ["class", "latency (ms)"]
    assert table.columns[1].text(table.rows[0].cells["latency"]) == "12.50"


def test_a_task_of_the_same_name_keeps_its_table(make_detector, make_record, store):
    store.put(make_detector())
    store.put(make_record("k1", task="classes", metrics={"x": 0.5}))
    out = write_report(store.root).paths[0].parent
    assert "x_std" in (out / "classes.csv").read_text()
    assert "metric,class,value" in (out / "classes_.csv").read_text()

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from spikebench.energy.operations import NeuronRow, OperationReport, OperationRow
from spikebench.errors import UserError
from spikebench.files import write_atomically
from spikebench.results import (
    BackboneInfo,
    DatasetInfo,
    Metric,
    MissingResultsError,
    Record,
    RecordError,
    ResultStore,
    find_records,
    read_record,
)


def make_record(key: str = "k0", **changes) -> Record:
    row = OperationRow(
        name="stem",
        kind="conv2d",
        dense_macs=1e6 / 3,
        dense_macs_unpadded=3e5,
        value_kind="real",
        rate=0.1 + 0.2,
        exact_synaptic_operations=12345.678901234567,
    )
    neuron = NeuronRow(
        name="lif", kind="LIF", neurons=2, updates=8, state_bytes=8, rate=1 / 7, spikes=8 / 7
    )
    fields = {
        "key": key,
        "suite": "demo",
        "status": "finished",
        "backbone": BackboneInfo(
            name="meta_spikeformer_nano", arguments={"dims": [8, 16]}, time_steps=4, parameters=7
        ),
        "backbone_name": "meta_spikeformer_nano",
        "task": "classification",
        "protocol": "digits",
        "dataset": DatasetInfo(name="digits", split="test", train_samples=9, test_samples=3),
        "seed": 3,
        "metrics": {
            "top1": Metric(value=2 / 3),
            "latency": Metric(value=0.1, unit="ms", higher_is_better=False),
        },
        "parameters": 12,
        "operations": OperationReport(images=3, time_steps=4, rows=[row], neurons=[neuron]),
        "energy_mj": {"rate-45nm": 1e-7 / 3},
        "checkpoint_sha256": "0" * 64,
        "config": {"model": {"lr": 1e-3, "dims": [1, 2], "name": "münchen", "none": None}},
        "packages": {"torch": "2.14.1"},
        "commit": "f" * 40,
        "device": "cpu",
        "started": "2025-01-01T00:00:00+00:00",
        "resumed": True,
        "wall_time_s": {"train": 0.123},
    }
    return Record(**{**fields, **changes})


def names_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


class TestRecord:
    def test_a_round_trip_keeps_every_digit(self, tmp_path: Path):
        record = make_record()
        path = ResultStore(tmp_path).put(record)
        assert read_record(path) == record
        assert ResultStore(tmp_path).get(record.key) == record

    def test_a_figure_on_disk_has_full_precision(self, tmp_path: Path):
        path = ResultStore(tmp_path).put(make_record())
        assert json.loads(path.read_text())["metrics"]["top1"]["value"] == 2 / 3

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    def test_a_figure_is_a_finite_number(self, value: float):
        with pytest.raises(ValidationError, match="finite number"):
            Metric(value=value)
        with pytest.raises(ValidationError, match="finite number"):
            make_record(energy_mj={"rate-45nm": value})

    def test_an_unknown_field_is_refused(self):
        with pytest.raises(ValidationError, match="Extra inputs"):
            make_record(accuracy=0.9)

    def test_intervals_classes_and_parts_are_kept(self, tmp_path: Path):
        record = make_record(
            metrics={"box_map": Metric(value=1 / 3, interval=(0.1 + 0.2, 2 / 5))},
            per_class={"box_map": {"cat": 1 / 7, "dog": 0.0}},
            energy_by_part={"rate-45nm": {"backbone": 1 / 9, "neck": 2.0}},
        )
        assert read_record(ResultStore(tmp_path).put(record)) == record

    def test_a_record_of_before_there_were_any_is_read(self, tmp_path: Path):
        data = make_record().model_dump(mode="json")
        del data["per_class"], data["energy_by_part"]
        for metric in data["metrics"].values():
            del metric["interval"]
        path = tmp_path / "record.json"
        path.write_text(json.dumps(data))
        assert read_record(path) == make_record()
        assert (read_record(path).per_class, read_record(path).energy_by_part) == ({}, {})

    @pytest.mark.parametrize("field", ["per_class", "energy_by_part"])
    def test_a_figure_of_a_class_or_part_is_a_finite_number(self, field: str):
        with pytest.raises(ValidationError, match="finite number"):
            make_record(**{field: {"x": {"y": float("nan")}}})

    def test_a_failed_record_needs_no_figures(self, tmp_path: Path):
        record = make_record(
            status="failed",
            error="no memory",
            backbone=None,
            dataset=None,
            metrics={},
            parameters=None,
            operations=None,
            energy_mj={},
            checkpoint_sha256=None,
        )
        assert read_record(ResultStore(tmp_path).put(record)) == record


class TestWriteAtomically:
    def test_it_makes_folders_and_leaves_nothing_else(self, tmp_path: Path):
        path = tmp_path / "a" / "b" / "record.json"
        write_atomically(path, "grün\n")
        assert path.read_text(encoding="utf-8") == "grün\n"
        assert names_below(tmp_path) == ["record.json"]
        assert path.stat().st_mode & 0o777 == 0o644

    @pytest.mark.parametrize("step", ["fsync", "replace"])
    @pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
    def test_an_exception_leaves_the_old_file_and_no_other(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
    ):
        def fail(*_):
            raise error

        path = tmp_path / "record.json"
        write_atomically(path, "old")
        monkeypatch.setattr(os, step, fail)
        with pytest.raises(type(error)):
            write_atomically(path, "new")
        assert path.read_text() == "old"
        assert names_below(tmp_path) == ["record.json"]

    @pytest.mark.parametrize("step", ["fsync", "replace"])
    def test_a_kill_in_the_middle_leaves_the_old_file(self, tmp_path: Path, step: str):
        path = tmp_path / "record.json"
        ResultStore(tmp_path / "store").put(make_record())
        write_atomically(path, "old")
        code = (
            "import os, signal, sys; from pathlib import Path;"
            "from spikebench.files import write_atomically;"
            f"os.{step} = lambda *_: os.kill(os.getpid(), signal.SIGKILL);"
            "write_atomically(Path(sys.argv[1]), 'new' * 100000)"
        )
        for target in (path, tmp_path / "store" / "k0" / "record.json"):
            done = subprocess.run([sys.executable, "-c", code, str(target)])
            assert done.returncode == -signal.SIGKILL
        assert path.read_text() == "old"
        assert [record for _, record in find_records(tmp_path / "store")] == [make_record()]


BROKEN = {
    "empty": "",
    "truncated": make_record().model_dump_json()[:-40],
    "no_json": "top1: 0.9",
    "a_list": "[]",
    "foreign": json.dumps({"model": "resnet", "top1": 0.9}),
    "of_another_schema": json.dumps({**make_record().model_dump(mode="json"), "schema_version": 1}),
}


class TestReading:
    @pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
    def test_what_is_no_record_is_named_in_one_line(self, tmp_path: Path, text: str):
        path = tmp_path / "k0" / "record.json"
        path.parent.mkdir()
        path.write_text(text)
        with pytest.raises(RecordError) as caught:
            ResultStore(tmp_path).get("k0")
        message = str(caught.value)
        assert isinstance(caught.value, UserError)
        assert message.startswith(str(path))
        assert "schema 2" in message
        assert "run again" in message  # the remedy
        assert "\n" not in message

    def test_bytes_that_are_no_text_are_no_record(self, tmp_path: Path):
        path = tmp_path / "record.json"
        path.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(RecordError, match="."):
            read_record(path)

    def test_the_wrong_field_is_named(self, tmp_path: Path):
        data = make_record().model_dump(mode="json")
        data["metrics"]["top1"]["value"] = "high"
        path = tmp_path / "record.json"
        path.write_text(json.dumps(data))
        with pytest.raises(RecordError, match=r"metrics\.top1\.value"):
            read_record(path)


class TestFindRecords:
    def test_in_a_work_folder_they_come_sorted_by_path(self, tmp_path: Path):
        for suite, key in (("b", "k1"), ("a", "k2"), ("a", "k0")):
            ResultStore(tmp_path / suite).put(make_record(key, suite=suite))
        (tmp_path / "a" / "k0" / "other.json").write_text("{}")
        found = find_records(tmp_path)
        assert [(record.suite, record.key) for _, record in found] == [
            ("a", "k0"),
            ("a", "k2"),
            ("b", "k1"),
        ]
        assert found[0][0] == tmp_path / "a" / "k0" / "record.json"

    def test_in_a_folder_of_published_records_any_name_will_do(self, tmp_path: Path):
        for name in ("second.json", "first.json"):
            write_atomically(tmp_path / name, make_record(name).model_dump_json())
        (tmp_path / "README.md").write_text("published")
        assert [record.key for _, record in find_records(tmp_path)] == ["first.json", "second.json"]

    def test_a_single_file_is_read_as_one(self, tmp_path: Path):
        path = tmp_path / "mine.json"
        write_atomically(path, make_record().model_dump_json())
        assert find_records(path) == [(path, make_record())]

    def test_an_empty_folder_has_none(self, tmp_path: Path):
        assert find_records(tmp_path) == []
        assert ResultStore(tmp_path).get("k0") is None

    def test_what_is_missing_is_named(self, tmp_path: Path):
        with pytest.raises(MissingResultsError, match=f"{tmp_path}/none"):
            find_records(tmp_path / "none")
        assert issubclass(MissingResultsError, UserError)

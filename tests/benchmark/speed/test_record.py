from __future__ import annotations

import json
from pathlib import Path

import pytest

from spikebench.results import MissingResultsError, RecordError, find_records
from spikebench.speed.record import Contender, find_speed_records, speed_key, write_speed_record
from tests.benchmark.speed.records import speed_record, timing


def test_a_record_reads_back_as_it_was_written(tmp_path: Path):
    record = speed_record(timing([[0.1, 1 / 3], [0.2]]), timing([], neurons="x", error="no"))
    path = write_speed_record(record, tmp_path / "new" / "folder")
    assert path.name == "speed-spikeformer-k0.json"
    assert find_speed_records(tmp_path) == [(path, record)]
    assert find_speed_records(path) == [(path, record)]


def test_other_records_do_not_stumble_over_it(tmp_path: Path):
    path = write_speed_record(speed_record(), tmp_path)
    assert find_records(tmp_path) == []
    assert find_records(path) == []


def test_it_does_not_stumble_over_other_records(tmp_path: Path):
    (tmp_path / "record.json").write_text("{}")
    (tmp_path / "classification-a.json").write_text("{}")
    assert find_speed_records(tmp_path) == []
    assert find_speed_records(tmp_path / "record.json") == []


def test_a_file_that_is_no_speed_record_is_named(tmp_path: Path):
    path = write_speed_record(speed_record(), tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 2}))
    with pytest.raises(RecordError, match=f"{path}.*schema_version"):
        find_speed_records(tmp_path)
    with pytest.raises(MissingResultsError, match="none"):
        find_speed_records(tmp_path / "none")


def test_the_key_tells_measurements_apart():
    settings = speed_record().settings
    contenders = [Contender(neurons="reference")]
    keys = {
        speed_key(settings, contenders, "a"),
        speed_key(settings, contenders, "b"),
        speed_key(settings, [*contenders, Contender(neurons="compiled")], "a"),
        speed_key(settings.model_copy(update={"batch_size": 8}), contenders, "a"),
    }
    assert len(keys) == 4
    assert speed_key(settings, contenders, "a") in keys


@pytest.mark.parametrize(
    ("contender", "work", "label"),
    [
        ({"neurons": "compiled"}, "inference", "compiled, float32"),
        (
            {"neurons": "compiled", "mode": "train", "grad_checkpointing": True},
            "training",
            "compiled, float32, gradient checkpointing",
        ),
        (
            {"neurons": "a", "form": "paper", "channels_last": True, "precision": "bfloat16"},
            "inference",
            "a, bfloat16, paper, channels last",
        ),
        ({"subject": "lif", "neurons": "a", "mode": "train"}, "LIF training", "a, float32"),
        ({"subject": "matmul"}, "matmul inference", "float32"),
    ],
)
def test_a_contender_is_described(contender: dict, work: str, label: str):
    described = Contender(**contender)
    assert (described.work, described.label) == (work, label)

"""Rows of published and small data sets: the configurations run, and their tables are written."""

from __future__ import annotations

import csv

import pytest

from tests.tasks.small import CONFIGS, NANO, data_of, resolved, short
from tests.tasks.tiny_data import make_tiny

ROWS = {
    "detection/mask_rcnn_15m_t1_coco": "coco",
    "detection/faster_rcnn_nano_bccd": "bccd",
    "detection/mask_rcnn_nano_nuclei": "nuclei200",
    "segmentation/semantic_fpn_15m_t4_ade20k": "ade20k",
    "segmentation/semantic_fpn_nano_nuclei": "nuclei200",
}


@pytest.mark.slow
def test_every_data_set_has_its_rows(helpers, tmp_path):
    spikebench = helpers.Command(tmp_path, tmp_path / "sets")
    for name, folder in ROWS.items():
        path = CONFIGS / f"{name}.py"
        task, config = path.parent.name, resolved(path)[1]
        assert data_of(config) == {folder}
        if not (tmp_path / "sets" / folder).exists():
            make_tiny(tmp_path / "sets", folder)
        suite = tmp_path / "tables.yaml"
        suite.write_text(
            f"name: tables\nbackbones: [{NANO}]\ntasks:\n  - {{task: {task}, config: {path}}}\n"
        )
        options = [part for one in short(config) for part in ("--set", f"{task}.{one}")]
        done = spikebench("run", suite, *options)
        assert done.returncode == 0, done.stderr
    done = spikebench("report", "work_dirs/tables", "--out", "report")
    assert done.returncode == 0, done.stderr
    found = []
    for table, metric in (("detection", "box_map50"), ("segmentation", "miou")):
        with (tmp_path / "report" / f"{table}.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert all(0 <= float(row[metric]) <= 1 for row in rows)
        found += [f"{table}/{row['protocol']}" for row in rows]
        sets = {row["dataset"] for row in rows}
        assert sets == {folder for name, folder in ROWS.items() if name.startswith(table)}
    assert sorted(found) == sorted(ROWS)

from __future__ import annotations

from pathlib import Path

import pytest

from spikebench.registry import DATASETS
from spikebench.task import MissingDataError
from spikebench_tasks.datasets.published import COCO, PUBLISHED, VOC2012, published_at


def test_a_data_set_is_found_by_any_path_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = tmp_path
    assert published_at(root / "coco", root) is COCO
    assert published_at(root / "coco" / "annotations" / "x.json", root) is COCO
    assert published_at(root / "VOCdevkit" / "VOC2012" / "JPEGImages", root) is VOC2012
    assert published_at(root / "VOCdevkit", root) is None
    assert published_at(root / "coconuts", root) is None
    assert published_at(root.parent / "coco", root) is None
    monkeypatch.chdir(root)
    assert published_at(Path("coco"), Path()) is COCO


def test_each_has_a_place_and_a_source_of_its_own():
    modules = [DATASETS.get(name) for name in DATASETS.names()]
    published = [*PUBLISHED, *(one.published for one in modules if hasattr(one, "published"))]
    assert len(published) >= 17
    assert len({one.location for one in published}) == len(published)
    for one in published:
        assert "http" in one.instruction
        assert one.location.partition("/")[0] in one.instruction


def test_what_is_missing_or_empty_is_said(tmp_path: Path):
    with pytest.raises(MissingDataError) as caught:
        COCO.require(tmp_path / "coco" / "val2017")
    assert str(caught.value) == (
        f"COCO 2017 is missing: {tmp_path}/coco/val2017 is not there; get images and annotations "
        "from https://cocodataset.org/#download and unpack them into coco below the data root "
        "(--data-root or $SPIKEBENCH_DATA)"
    )
    (tmp_path / "coco" / "val2017").mkdir(parents=True)
    with pytest.raises(MissingDataError, match="coco/val2017 is empty; "):
        COCO.require(tmp_path / "coco" / "val2017")
    (tmp_path / "coco" / "val2017" / "x.jpg").write_bytes(b"")
    COCO.require(tmp_path / "coco" / "val2017")

from __future__ import annotations

from pathlib import Path

import pytest

from spikebench.task import MissingDataError
from spikebench_tasks.datasets.published import COCO, PUBLISHED, VOC2012, published_at


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path))
    return tmp_path


def test_a_data_set_is_found_by_any_path_in_it(root: Path, monkeypatch: pytest.MonkeyPatch):
    assert published_at(root / "coco", root) is COCO
    assert published_at(root / "coco" / "annotations" / "x.json", root) is COCO
    assert published_at(root / "VOCdevkit" / "VOC2012" / "JPEGImages", root) is VOC2012
    assert published_at(root / "VOCdevkit", root) is None
    assert published_at(root / "coconuts", root) is None
    assert published_at(root.parent / "coco", root) is None
    monkeypatch.chdir(root)
    assert published_at(Path("coco"), root) is COCO


def test_each_has_a_place_and_a_source_of_its_own():
    assert len({one.location for one in PUBLISHED}) == len(PUBLISHED)
    for one in PUBLISHED:
        assert "http" in one.instruction
        assert one.location.partition("/")[0] in one.instruction


def test_what_is_missing_or_empty_is_said(root: Path):
    with pytest.raises(MissingDataError) as caught:
        COCO.require(root / "coco" / "val2017")
    assert str(caught.value) == (
        f"COCO 2017 is missing: {root}/coco/val2017 is not there; get images and annotations from "
        "https://cocodataset.org/#download and unpack them into coco below the data root "
        "(--data-root or $SPIKEBENCH_DATA)"
    )
    (root / "coco" / "val2017").mkdir(parents=True)
    with pytest.raises(MissingDataError, match="coco/val2017 is empty; "):
        COCO.require(root / "coco" / "val2017")
    (root / "coco" / "val2017" / "x.jpg").write_bytes(b"")
    COCO.require(root / "coco" / "val2017")

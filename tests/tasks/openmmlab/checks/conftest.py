from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.tasks.openmmlab import trees


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "spikebench" / "data"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with three images a split of each data set."""
    folder = tmp_path / "sets"
    for make in (trees.coco, trees.ade20k, trees.voc2012, trees.cityscapes):
        make(folder, np.random.default_rng(0))
    monkeypatch.setenv("SPIKEBENCH_DATA", str(folder))
    return folder

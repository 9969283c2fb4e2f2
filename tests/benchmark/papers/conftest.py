from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from safetensors.torch import save_file

from spikebench.papers.reported import PaperTable, load_table
from tests.benchmark.papers.rows import FIGURES, small_classifier


@pytest.fixture
def write_table(tmp_path: Path) -> Callable[..., PaperTable]:
    """Write a table of one's own at 32x32, and read it."""

    def write(*rows: dict[str, Any], **keys: Any) -> PaperTable:
        content = {"title": "Mine", "figures": FIGURES, "image_size": 32, "rows": list(rows)}
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump({**content, **keys}))
        return load_table(str(path))

    return write


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Weights of `small_classifier`, of another seed than models are built with."""
    path = tmp_path / "small.safetensors"
    save_file(small_classifier(seed=3).state_dict(), path)
    return path


@pytest.fixture
def photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three images in the folder `photographs` of the data root."""
    folder = tmp_path / "data" / "photographs"
    folder.mkdir(parents=True)
    for number in range(3):
        Image.effect_noise((40, 40), 50.0 + number).save(folder / f"{number}.png")
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path / "data"))
    return folder

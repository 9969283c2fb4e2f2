from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from mmengine.registry import DefaultScope

from spikebench.neurons import use_backend
from spikebench.task import Run

ROOT = Path(__file__).parents[2]
CONFIGS = {
    "classification": ROOT / "configs" / "classification" / "digits.py",
    "detection": ROOT / "configs" / "detection" / "mask_rcnn_digit_scenes.py",
    "segmentation": ROOT / "configs" / "segmentation" / "semantic_fpn_digit_scenes.py",
}


collect_ignore = ["openmmlab/worker.py"]  # a script that reads what is beside it


@pytest.fixture(autouse=True)
def _scope() -> Iterator[None]:
    """A registry's default scope ends with the test that set it."""
    before = dict(DefaultScope._instance_dict)
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(before)


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered of data that passed a check is not the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session", autouse=True)
def _plain_configs() -> Iterator[None]:
    """MMEngine writes a configuration as it is.

    It lays its text out for logs and with each checkpoint, which takes longer than training on tiny
    data does.
    """
    with mock.patch("mmengine.config.config.FormatCode", lambda text, **_: (text, True)):
        yield


@pytest.fixture(scope="session")
def data_root(scenes_root: Path) -> Iterator[Path]:
    """A data root with the digit scenes, which the environment names; not to be written to."""
    before = os.environ.get("SPIKEBENCH_DATA")
    os.environ["SPIKEBENCH_DATA"] = str(scenes_root)
    yield scenes_root
    if before is None:
        del os.environ["SPIKEBENCH_DATA"]
    else:
        os.environ["SPIKEBENCH_DATA"] = before


@pytest.fixture(scope="session")
def scenes(data_root: Path) -> Path:
    """The folder of the digit scenes."""
    return data_root / "digit_scenes"


@pytest.fixture(scope="session")
def configs() -> dict[str, Path]:
    """The configuration of each task."""
    return CONFIGS


@pytest.fixture
def as_runs_compute() -> Iterator[None]:
    """On all cores, and neurons in the form that runs take, not in the tests' reference one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(torch.multiprocessing.cpu_count())
    with use_backend("auto"):
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with some real images and recordings of events, not to be written to."""
    shared = Path(os.environ.get("SPIKEBENCH_SHARED", ROOT.parent / "shared")) / "data"
    if not shared.is_dir():
        pytest.skip(f"no {shared}; SPIKEBENCH_SHARED says where it is")
    root = tmp_path / "samples"
    root.mkdir()
    (root / "coco").symlink_to(shared / "coco53_cc")
    (root / "ade20k").symlink_to(shared / "ade20k_sample3")
    (root / "event_samples").symlink_to(shared / "event_samples")
    monkeypatch.setenv("SPIKEBENCH_DATA", str(root))
    return root


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Run]:
    """A run of a resolved configuration, in a folder of its own."""

    def make(task: str, config: dict[str, Any], limit: int | None = 8, seed: int = 0) -> Run:
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        return Run(
            key="key",
            suite="test",
            backbone="meta_spikeformer_nano",
            task=task,
            protocol=CONFIGS[task].stem,
            seed=seed,
            config=config,
            folder=folder,
            tensorboard=tmp_path / "tensorboard" / "name",
            limit=limit,
        )

    return make

from __future__ import annotations

import platform
import re
import subprocess
from pathlib import Path

import pytest
import torch

from spikebench import environment


@pytest.fixture(autouse=True)
def _fresh():
    caches = (environment.commit, environment.device_name)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that environment.py takes for this project's."""
    module = tmp_path / "benchmark" / "spikebench" / "environment.py"
    module.parent.mkdir(parents=True)
    monkeypatch.setattr(environment, "__file__", str(module))
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_versions_are_those_of_what_is_installed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(environment, "REQUIRED", ("torch",))
    monkeypatch.setattr(environment, "OPTIONAL", ("no-such-package",))
    assert environment.package_versions("no-such-package|pytest") == {
        "python": platform.python_version(),
        "torch": torch.__version__.partition("+")[0],
        "pytest": pytest.__version__,
    }


def test_the_commit_is_that_of_the_checkout_and_says_where_files_differ(checkout: Path):
    git(checkout, "init", "-q")
    (checkout / "a.py").write_text("a")
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "first")
    head = git(checkout, "rev-parse", "HEAD")
    assert environment.commit() == head
    assert re.fullmatch(r"[0-9a-f]{40}", head)
    environment.commit.cache_clear()
    (checkout / "a.py").write_text("b")
    assert environment.commit() == f"{head}-dirty"


def test_outside_a_checkout_there_is_no_commit(checkout: Path):
    assert environment.commit() is None


def test_a_checkout_that_git_cannot_read_has_no_commit(checkout: Path):
    (checkout / ".git").mkdir()
    assert environment.commit() is None


def test_without_git_there_is_no_commit(checkout: Path, monkeypatch: pytest.MonkeyPatch):
    (checkout / ".git").mkdir()
    monkeypatch.setenv("PATH", "")
    assert environment.commit() is None


def test_the_device_is_the_one_torch_will_use(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")
    assert environment.device_name() == "Some GPU"


def test_without_an_accelerator_the_device_is_the_processor(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert environment.device_name().endswith(f", {torch.get_num_threads()} threads")

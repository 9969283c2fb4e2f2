from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from spikebench.cli import app
from spikebench.datacheck import SplitCheck, first_errors
from spikebench.errors import UserError
from spikebench.registry import TASKS, UnknownNameError
from spikebench.task import ConfigError
from tests.benchmark.conftest import FakeTask


class Checking(FakeTask):
    """A task whose data are what a test says."""

    checks: list[SplitCheck] = []
    asked: list[tuple[Path, list[str], Path]] = []

    def check_data(
        self, config: Path, overrides: Sequence[str], data_root: Path
    ) -> list[SplitCheck]:
        self.asked.append((config, list(overrides), data_root))
        return self.checks


@pytest.fixture(autouse=True)
def tasks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two tasks, and configuration files in the working directory."""
    for name in ("x.py", "configs/checking/x.py", "configs/unchecked/x.py", "configs/mine/x.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(TASKS._entries, "checking", Checking)
    monkeypatch.setitem(TASKS._entries, "unchecked", FakeTask)
    monkeypatch.setattr(Checking, "checks", [])
    monkeypatch.setattr(Checking, "asked", [])
    monkeypatch.setenv("SPIKEBENCH_DATA", "data")


def check(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["check-data", *arguments])


SOUND = SplitCheck("train", "toy", 1234, 5678, 3, {"crowd annotations, ignored": 2})


def test_what_was_found_is_a_table(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Checking, "checks", [SOUND, SplitCheck("test", "toy", 9, 8, 3)])
    done = check("configs/checking/x.py")
    assert done.exit_code == 0, done.output
    lines = [" ".join(line.split()) for line in done.output.splitlines() if line.strip()]
    assert lines[0] == "split data set images annotations classes skipped errors"
    assert lines[2] == "train toy 1,234 5,678 3 crowd annotations, ignored: 2 0"
    assert lines[3] == "test toy 9 8 3 - 0"
    assert len(lines) == 4
    assert Checking.asked == [(Path("configs/checking/x.py"), [], Path("data"))]


def test_options_are_handed_on():
    check("x.py", "--task", "checking", "--data-root", "/sets", "--set", "a=1", "--set", "+b=2")
    assert Checking.asked == [(Path("x.py"), ["a=1", "+b=2"], Path("/sets"))]


def test_errors_are_listed_and_the_rest_is_counted(monkeypatch: pytest.MonkeyPatch):
    train = SplitCheck("train", errors=[f"/{index}.jpg is missing" for index in range(19)])
    test = SplitCheck("test", errors=["first", "second", "third"])
    monkeypatch.setattr(Checking, "checks", [train, test])
    done = check("x.py", "--task", "checking")
    assert done.exit_code == 1
    assert "train: /0.jpg is missing\ntrain: /1.jpg is missing\n" in done.output
    assert done.output.endswith("train: /18.jpg is missing\ntest: first\n... and 2 more\n")


def test_the_task_is_that_of_the_folder_unless_it_is_named():
    assert check("configs/checking/x.py", "--task", "unchecked").exit_code == 1
    assert isinstance(check("configs/unchecked/x.py").exception, UserError)
    check("configs/unchecked/x.py", "--task", "checking")
    assert len(Checking.asked) == 1


def test_a_folder_that_is_no_task():
    error = check("configs/mine/x.py").exception
    assert isinstance(error, ConfigError)
    assert "'mine'" in str(error)
    assert "--task" in str(error)


def test_a_task_that_does_not_exist():
    error = check("x.py", "--task", "chekcing").exception
    assert isinstance(error, UnknownNameError)
    assert "'checking'" in str(error)


def test_a_task_without_a_check_says_so():
    error = check("x.py", "--task", "unchecked").exception
    assert isinstance(error, UserError)
    assert "FakeTask" in str(error)


def test_first_errors_name_their_split():
    checks = [SplitCheck("train", errors=["a", "b"]), SplitCheck("test", errors=["c"])]
    assert first_errors(checks, 2) == (["train: a", "train: b"], 1)
    assert first_errors(checks, 5) == (["train: a", "train: b", "test: c"], 0)
    assert first_errors([], 5) == ([], 0)

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from spikebench import cli
from spikebench.papers.record import Reproduction
from spikebench.results import read_as
from tests.benchmark.papers.rows import row


class Done(NamedTuple):
    code: object
    out: str
    err: str


@pytest.fixture
def spikebench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    """Run the command in a folder of its own."""
    logger = logging.getLogger("spikebench")
    before = logger.level, logger.propagate, list(logger.handlers)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPIKEBENCH_DATA", "data")
    monkeypatch.setenv("GOMP_SPINCOUNT", "10000")

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["spikebench", *arguments])
        capsys.readouterr()
        code: object = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        finally:
            logger.level, logger.propagate, logger.handlers = before[0], before[1], [*before[2]]
        return Done(code, *capsys.readouterr())

    return run


class TestReproduce:
    def test_it_writes_the_record_and_its_tables(self, spikebench, write_table, tmp_path: Path):
        write_table(row("first"), row("second", model="foreign", build=None))
        done = spikebench("reproduce", "mine.yaml", "--out", "tables")
        assert done.code == 0
        record = read_as(Reproduction, tmp_path / "tables" / "reproduction-mine.json")
        assert [each.reported.id for each in record.rows] == ["first", "second"]
        written = {path.name for path in (tmp_path / "tables").iterdir()}
        tables = {f"mine{suffix}" for suffix in (".md", ".csv", ".tex", ".html")}
        assert written == {"reproduction-mine.json", *tables}
        for name in written:
            assert f"written: tables/{name}" in done.out
        assert "no registered backbone of this name" in done.out
        assert "[2/2] second" in done.err

    def test_options_are_handed_on(
        self, spikebench, write_table, weights: Path, photographs: Path, tmp_path: Path
    ):
        write_table(row("t1"), row("t4", time_steps=4), data="photographs")
        done = spikebench(
            *("reproduce", "mine.yaml", "--rows", "t4", "--weights", str(weights)),
            *("--limit", "2", "--data-root", str(photographs.parent)),
        )
        assert done.code == 0
        path = tmp_path / "work_dirs" / "reproduce" / "reproduction-mine.json"
        assert json.loads(path.read_text())["images"] == f"2 images of {photographs}"

    def test_an_interruption_makes_it_exit_with_130(self, spikebench, write_table, monkeypatch):
        def interrupted(*_, **__):
            raise KeyboardInterrupt

        monkeypatch.setattr("spikebench.papers.operation_counts.profile_operations", interrupted)
        write_table(row("a"))
        done = spikebench("reproduce", "mine.yaml")
        assert done.code == 130
        assert done.err.splitlines()[-1] == "interrupted: nothing was recorded"


WRONG = {
    ("imagnet",): "'imagenet'",
    ("resnet.yaml",): "resnet.yaml",
    ("imagenet", "--rows", "deit"): "'deit_b'",
    ("imagenet", "--weights", "none.pth"): "none.pth",
    (
        "imagenet",
        "--weights",
        "deit_b=none.pth",
    ): "meta_spikeformer_15m-t1",
    ("har-dvs", "--weights", "none.pth"): "har-dvs",
    ("har-dvs", "--out", "/dev/null/x"): "/dev/null/x",
}


class TestAWrongRequest:
    @pytest.mark.parametrize(("arguments", "message"), WRONG.items(), ids=map(" ".join, WRONG))
    def test_is_one_line_and_leaves_nothing_behind(
        self, spikebench, tmp_path: Path, arguments: tuple[str, ...], message: str
    ):
        done = spikebench("reproduce", *arguments)
        assert str(done.code).startswith("error: ")
        assert message in str(done.code)
        assert "\n" not in str(done.code)
        assert (done.out, done.err) == ("", "")
        assert list(tmp_path.iterdir()) == []

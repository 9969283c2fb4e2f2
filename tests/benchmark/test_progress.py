from __future__ import annotations

import io
import logging

import pytest

from spikebench import progress
from spikebench.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch):
    class Clock:
        now = 100.0

    monkeypatch.setattr(progress.time, "monotonic", lambda: Clock.now)
    return Clock


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logging.getLogger("spikebench"), "propagate", True)
    caplog.set_level(logging.INFO, logger="spikebench")
    return lambda: [record.message for record in caplog.records]


def test_without_a_terminal_there_is_a_line_now_and_then(clock, lines):
    with Progress("train", 100, every=10) as bar:
        for _ in range(100):
            clock.now += 1
            bar.update()
    assert lines() == [f"train {done}/100, {100 - done} s left" for done in range(10, 100, 10)] + [
        "train 100/100"
    ]


def test_the_end_is_always_said(clock, lines):
    with Progress("test", 3, every=10) as bar:
        for _ in range(3):
            bar.update()
    assert lines() == ["test 3/3"]


def test_what_was_done_before_does_not_make_it_look_fast(clock, lines):
    with Progress("train", 100, every=10) as bar:
        bar.start_at(50)
        clock.now += 10
        bar.update(60)
    assert lines() == ["train 60/100, 40 s left"]


def test_figures_stand_beside_it(clock, lines):
    with Progress("train", 2) as bar:
        bar.update(2, loss=0.123456, lr=1e-3)
    assert lines() == ["train 2/2 loss=0.1235 lr=0.001"]


def test_a_figure_may_be_words(lines):
    with Progress("train", 2) as bar:
        bar.update(2, epoch="1/3", loss=0.5)
    assert lines() == ["train 2/2 epoch=1/3 loss=0.5"]


def test_what_takes_hours_is_said_in_hours(clock, lines):
    with Progress("train", 1000) as bar:
        clock.now += 100
        bar.update(10)
        clock.now += 1900
        bar.update(200)
    assert lines() == ["train 10/1000, 2:45:00 h left", "train 200/1000, 2:13:20 h left"]


def test_without_a_total_there_is_a_count(clock, lines):
    with Progress("count", None, every=1) as bar:
        clock.now += 1
        bar.update(7)
    assert lines() == ["count 7"]


def test_on_a_terminal_there_is_a_bar_and_no_line(lines, monkeypatch: pytest.MonkeyPatch):
    screen = io.StringIO()
    screen.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with Progress("train", 4) as bar:
        bar.update(3, loss=0.5)
    assert "train" in screen.getvalue()
    assert "3/4" in screen.getvalue()
    assert "loss=0.5" in screen.getvalue()
    assert lines() == []


def test_beside_a_bar_files_have_the_lines(
    clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    screen = io.StringIO()
    screen.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stderr", screen)
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    progress.FILE_LOG.addHandler(handler)
    try:
        with Progress("train", 4, every=10) as bar:
            clock.now += 10
            bar.update(1, loss=0.5)
            bar.update(2, loss=0.4)
    finally:
        progress.FILE_LOG.removeHandler(handler)
    assert written.getvalue() == "train 1/4, 30 s left loss=0.5\n"
    assert [record for record in caplog.records if record.name == "spikebench"] == []


def test_the_bar_goes_away_when_something_fails(monkeypatch: pytest.MonkeyPatch):
    screen = io.StringIO()
    screen.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stderr", screen)
    bar = Progress("train", 4)
    with pytest.raises(RuntimeError), bar:
        raise RuntimeError
    assert bar._bar is not None
    assert not bar._bar.live.is_started

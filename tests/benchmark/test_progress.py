from __future__ import annotations

import io
import logging

import pytest

from benchmark import progress
from benchmark.progress import Progress


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


def test_the_bar_goes_away_when_something_fails(monkeypatch: pytest.MonkeyPatch):
    screen = io.StringIO()
    screen.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stderr", screen)
    bar = Progress("train", 4)
    with pytest.raises(RuntimeError), bar:
        raise RuntimeError
    assert bar._bar is not None
    assert not bar._bar.live.is_started

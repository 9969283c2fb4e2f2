"""Progress of long work: a Rich bar on a terminal, plain lines every few seconds elsewhere.

A run's log file gets the lines in both cases.
"""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

log = logging.getLogger("spikebench")

FILE_LOG = logging.getLogger("spikebench-file")
"""Lines for log files only: on a terminal the bar shows the same."""
FILE_LOG.setLevel(logging.INFO)
FILE_LOG.propagate = False
FILE_LOG.addHandler(logging.NullHandler())


class Progress:
    """Progress towards `total` steps, used as a context manager.

    Args:
        title: what is being done.
        total: steps in all, or None where unknown.
        every: seconds between two plain lines.
    """

    def __init__(self, title: str, total: int | None, every: float = 10.0) -> None:
        self.title = title
        self.total = total
        self.every = every
        self.done = 0
        self._started = self._last = time.monotonic()
        self._first = 0
        self._bar: Bar | None = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from rich.console import Console

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[figures]}"),
            )
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._bar.add_task(self.title, total=self.total, figures="")
        return self

    def start_at(self, done: int) -> None:
        """Start from `done` steps, as after a resume."""
        self.done = self._first = done
        self._started = time.monotonic()

    def update(self, done: int | None = None, **figures: float | str) -> None:
        """Set the steps done (one more by default), with figures to show beside them."""
        self.done = self.done + 1 if done is None else done
        text = " ".join(
            f"{name}={value if isinstance(value, str) else format(value, '.4g')}"
            for name, value in figures.items()
        )
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self.done, figures=text)
        now = time.monotonic()
        if now - self._last >= self.every or self.done == self.total:
            self._last = now
            to = log if self._bar is None else FILE_LOG
            to.info(" ".join(filter(None, (self._line(now), text))))

    def _line(self, now: float) -> str:
        of = "" if self.total is None else f"/{self.total}"
        line = f"{self.title} {self.done}{of}"
        steps = self.done - self._first
        if self.total is not None and steps > 0 and self.done < self.total:
            left = (now - self._started) / steps * (self.total - self.done)
            line += f", {_duration(left)} left"
        return line

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def _duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best.

    Example:
        >>> _duration(94.6), _duration(125), _duration(12000)
        ('95 s', '2:05 min', '3:20:00 h')
    """
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d} h"

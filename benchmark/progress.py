"""Progress of long work: a Rich bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

log = logging.getLogger("spikebench")


class Progress:
    """Progress towards `total` steps, used as a context manager.

    Args:
        title: what is being done.
        total: steps in all, or None where unknown.
        every: seconds between two plain lines where the output is no terminal.
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
        """Say that `done` steps were done before, as after a resume."""
        self.done = self._first = done
        self._started = time.monotonic()

    def update(self, done: int | None = None, **figures: float) -> None:
        """Set the steps done (one more by default), with figures to show beside them."""
        self.done = self.done + 1 if done is None else done
        text = " ".join(f"{name}={value:.4g}" for name, value in figures.items())
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self.done, figures=text)
            return
        now = time.monotonic()
        if now - self._last >= self.every or self.done == self.total:
            self._last = now
            log.info(" ".join(filter(None, (self._line(now), text))))

    def _line(self, now: float) -> str:
        of = "" if self.total is None else f"/{self.total}"
        line = f"{self.title} {self.done}{of}"
        steps = self.done - self._first
        if self.total is not None and steps > 0 and self.done < self.total:
            left = (now - self._started) / steps * (self.total - self.done)
            line += f", {left:.0f} s left"
        return line

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

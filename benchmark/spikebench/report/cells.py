"""The content of a table cell before rendering.

A figure is a mean over seeds at full precision; rounding happens only where it is shown. A figure
that no record holds is None, shown as an en dash, never as 0.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

MISSING = "–"
UNVERIFIED = "†"


@dataclass(frozen=True)
class SeedValues:
    """One number per seed, or a single one that all seeds share.

    Attributes:
        values: what the records hold.
        runs: how many records were asked; more than `len(values)` where some lack the figure.
        interval: the 95 % interval of a single run's figure, where its record holds one.

    >>> SeedValues((0.25, 0.75), runs=2).mean
    0.5
    """

    values: tuple[float, ...]
    runs: int = 1
    interval: tuple[float, float] | None = None

    @property
    def mean(self) -> float:
        """The mean; exactly the value itself where there is but one."""
        return self.values[0] if len(set(self.values)) == 1 else statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """The sample standard deviation (n - 1), or None of a single value."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def count(self) -> str:
        """How many seeds stand behind it: "3", "2 of 3", or nothing for a single run."""
        if len(self.values) < self.runs:
            return f"{len(self.values)} of {self.runs}"
        return str(self.runs) if self.runs > 1 else ""


@dataclass(frozen=True)
class RatioRange:
    """Ratios over the rounds of one measurement, shown as median and range.

    >>> RatioRange((1.5, 1.0, 4.0)).mid
    1.5
    """

    values: tuple[float, ...]

    @property
    def mid(self) -> float:
        """Their median."""
        return statistics.median(self.values)


@dataclass(frozen=True)
class AnnotatedValue:
    """A figure, or the lack of one, with the notes that a reader needs.

    Attributes:
        text: as it is shown, without the marks.
        value: at full precision; None where there is no figure.
        verified: whether a reported figure was seen in its source; all others are.
        measured: whether it was measured here: it then leads to the record.
        notes: the numbers, from 1, of the table's numbered notes that are about it.

    >>> AnnotatedValue("74.1", 74.1, verified=False, notes=(2,)).plain
    '74.1† (2)'
    """

    text: str
    value: float | None = None
    verified: bool = True
    measured: bool = False
    notes: tuple[int, ...] = ()

    @property
    def plain(self) -> str:
        """The text with its marks, where there is nothing but letters to show them."""
        mark = "" if self.verified else UNVERIFIED
        return f"{self.text}{mark}{self.numbers}"

    @property
    def numbers(self) -> str:
        """The numbers of its notes in brackets, a space before them; empty without."""
        shown = ", ".join(map(str, self.notes))
        return f" ({shown})" if shown and self.text else shown


Cell = str | SeedValues | RatioRange | AnnotatedValue | None

"""The result of checking the data of a configuration."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class SplitCheck:
    """The result for one data set of one split.

    Attributes:
        split: "train", "val" or "test", numbered where a split has several data sets.
        dataset: its name.
        images: how many are used.
        annotations: objects, or label maps.
        classes: how many the data set has.
        skips: how many items are left out or have no effect, by what they are; not an error.
        errors: one line each, naming the file.
        missing: whether the data are not there at all.
    """

    split: str
    dataset: str = ""
    images: int = 0
    annotations: int = 0
    classes: int = 0
    skips: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    missing: bool = False

    @property
    def skipped(self) -> str:
        """What is left out, in one line; empty if nothing is."""
        return "; ".join(f"{what}: {count:,}" for what, count in self.skips.items())


def first_errors(checks: Iterable[SplitCheck], most: int) -> tuple[list[str], int]:
    """The first `most` errors, each with its split, and how many more there are."""
    errors = [f"{one.split}: {error}" for one in checks for error in one.errors]
    return errors[:most], max(0, len(errors) - most)

"""Fitting a table to the width of a terminal: which columns, and how wide they are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from spikebench.report.columns import Column

GAP = 3  # between two columns
NAMES_SHARE = 5  # one part in so many of the width is the most that the first column gets
LEAST_TEXT = 8
LONGEST_HEAD = 10
NOT_IN_TERMINAL = frozenset(
    {
        *("split", "test_images", "counted_images", "seeds"),
        *("batch_size", "image_size", "latency_p95_s", "device"),
        *("working_memory_bytes", "memory_share"),
        *("energy_mj_rate-45nm", "energy_mj_lemaire-45nm"),
    }
)
"""Keys of columns that are in files only, beside those that say so themselves."""
DISPENSABLE = (
    *("protocol", "dense_macs", "synaptic_operations", "parameters"),
    *("dense_gmacs_dense", "measured_rates_dense", "implied_rates_dense"),
    *("dense_gmacs_as-coded", "dense_gmacs_paper", "dense_gmacs_measured", "notes"),
    *("dataset", "energy_mj_dense-45nm"),
)
"""Keys of columns that give way, the first of them first, where a terminal is too narrow."""


class Fit(NamedTuple):
    """What there is room for.

    Attributes:
        columns: those that are shown.
        narrow: whether texts and headings have to be broken.
        left_out: columns that had to give way.
        widths: by key, of columns that are not to be broken any further; empty where there is room
            for everything, or for nothing.
    """

    columns: list[Column]
    narrow: bool = False
    left_out: tuple[Column, ...] = ()
    widths: Mapping[str, int] = MappingProxyType({})

    def heading(self, column: Column) -> str:
        """A heading in lines; in a narrow table its unit has a line of its own."""
        text = f"{column.group}\n{column.title}".strip()
        return text.replace(" (", "\n(") if self.narrow else text


def fit(
    columns: Iterable[Column],
    texts: Mapping[str, list[str]],
    width: int,
    hidden: Collection[str] = NOT_IN_TERMINAL,
) -> Fit:
    """Choose columns and widths such that no figure is broken, as far as that goes.

    Args:
        columns: all of them.
        texts: their cells, by key.
        width: of the terminal, in letters.
        hidden: keys of columns to leave out in any case.
    """
    shown = [one for one in columns if one.key not in hidden and not one.in_files_only]
    whole = Fit(shown)
    if _total(max(map(_width, _lines(whole, column, texts))) for column in shown) <= width:
        return whole
    least = {column.key: _least(column, texts[column.key]) for column in shown}
    if shown[0].kind == "text":
        least[shown[0].key] = min(max(map(_width, texts[shown[0].key])), width // NAMES_SHARE)
    left_out: list[Column] = []
    for key in DISPENSABLE:
        if _total(least[column.key] for column in shown) <= width:
            break
        left_out += [column for column in shown[1:] if column.key == key]
        shown = [column for column in shown if column not in left_out]
    fits = _total(least[column.key] for column in shown) <= width
    kept = [column for column in shown if column.kind != "text" or column is shown[0]]
    return Fit(
        shown,
        narrow=True,
        left_out=tuple(left_out),
        widths={column.key: least[column.key] for column in kept} if fits else {},
    )


def _lines(found: Fit, column: Column, texts: Mapping[str, list[str]]) -> list[str]:
    return [*found.heading(column).splitlines(), *texts[column.key]]


def _total(widths: Iterable[int]) -> int:
    return sum(width + GAP for width in widths) + 1


def _least(column: Column, cells: list[str]) -> int:
    """Where texts and long headings may be broken, but no figure."""
    head = _longest_word([column.heading])
    if column.kind == "text":
        return min(max(head, *map(_width, cells)), LEAST_TEXT)
    return max(min(head, LONGEST_HEAD), _longest_word(cells))


def _longest_word(texts: Iterable[str]) -> int:
    return max((_width(word) for text in texts for word in text.split()), default=0)


def _width(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)

"""Rendering a table: Markdown, CSV, LaTeX and the terminal. Nothing here computes a figure."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

from benchmark.report.columns import MISSING, Cell, Column, Figure, Spread
from benchmark.report.grouping import Group, Source
from benchmark.report.tables import Row, Table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

SPREAD_NOTE = "Over several seeds: mean ± sample standard deviation (number of seeds)."
EMPTY_NOTE = "No finished run."
LONGEST_ERROR = 200
NOT_IN_TERMINAL = frozenset(
    {
        *("split", "test_images", "counted_images", "seeds"),
        *("batch_size", "image_size", "latency_p95_s", "device"),
        *("working_memory_bytes", "memory_share"),
    }
)


def failure_text(source: Source) -> str:
    """One line on a failed run: what it was and why it failed."""
    record = source.record
    lines = [line.strip() for line in (record.error or "").splitlines() if line.strip()]
    # A traceback says what happened in its last line, a message in its first.
    reason = "no error was recorded"
    if lines:
        reason = lines[-1] if lines[0].startswith("Traceback") else lines[0]
    if len(reason) > LONGEST_ERROR:
        reason = reason[:LONGEST_ERROR] + "..."
    return f"failed: {record.backbone_name}, {record.protocol}, seed {record.seed}: {reason}"


def backbone_text(row: Row, column: Column) -> str:
    """A cell in plain text; the backbone of a partial row is marked."""
    text = column.text(row.cells[column.key])
    return f"{text} (partial)" if column.key == "backbone" and row.partial else text


def relative(path: Path, base: Path) -> str:
    """`path` as seen from the folder `base`, with forward slashes."""
    return Path(os.path.relpath(path.resolve(), base.resolve())).as_posix()


def to_markdown(table: Table, base: Path) -> str:
    """A GitHub table whose last column links to the records, as seen from the folder `base`."""
    lines = [f"## {_markdown_text(table.title)}", ""]
    if table.rows:
        heads = [_markdown_text(column.title) for column in table.columns]
        rules = ["---" if column.kind == "text" else "---:" for column in table.columns]
        lines += [_markdown_row([*heads, "record"]), _markdown_row([*rules, "---"])]
    else:
        lines.append(EMPTY_NOTE)
    for row in table.rows:
        cells = [_markdown_text(backbone_text(row, column)) for column in table.columns]
        links = ", ".join(
            _markdown_link(f"seed {source.record.seed}", source, base) for source in row.sources
        )
        lines.append(_markdown_row([*cells, links]))
    if any(row.has_spread for row in table.rows):
        lines += ["", SPREAD_NOTE]
    if table.failures or table.superseded:
        lines.append("")
    for source in table.failures:
        text = _markdown_text(failure_text(source))
        lines.append(f"- {text} ({_markdown_link('record', source, base)})")
    for source in table.superseded:
        link = _markdown_link(source.record.key, source, base)
        lines.append(f"- left out, as a newer record of the same run exists: {link}")
    if table.notes:
        lines += ["", *(f"- {_markdown_text(note)}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def _markdown_row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _markdown_link(text: str, source: Source, base: Path) -> str:
    return f"[{_markdown_text(text)}]({quote(relative(source.path, base))})"


def _markdown_text(text: str) -> str:
    text = re.sub(r"([\\|`*\[\]<>&~$])", r"\\\1", " ".join(text.split()))
    # An underscore inside a word is literal in GitHub's Markdown, and reads better unescaped.
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)


def to_csv(table: Table, base: Path) -> str:
    """All rows at full precision and in base units, failed runs with empty figures.

    A measured figure takes two fields: the mean over seeds and, with the suffix `_std`, its
    sample standard deviation. A spread takes three: the median, and with the suffixes `_low` and
    `_high` its range. A missing figure is an empty field. Paths are as seen from `base`.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = [name for column in table.columns for name in _csv_names(column)]
    writer.writerow([*names, "seed", "status", "error", "key", "record"])
    for row in table.rows:
        status = "partial" if row.partial else "finished"
        fields = [
            field
            for column in table.columns
            for field in _csv_fields(column, row.cells[column.key])
        ]
        writer.writerow([*fields, *_csv_sources(row.sources, status, "", base)])
    for source in table.failures:
        group = Group((source,), source.record.backbone_name)
        fields = [
            field
            for column in table.columns
            for field in _csv_fields(column, None if column.is_figure else column.of(group))
        ]
        error = source.record.error or ""
        writer.writerow([*fields, *_csv_sources((source,), "failed", error, base)])
    return stream.getvalue()


_CSV_SUFFIXES = {"measured": ("", "_std"), "spread": ("", "_low", "_high")}


def _csv_names(column: Column) -> list[str]:
    return [column.key + suffix for suffix in _CSV_SUFFIXES.get(column.kind, ("",))]


def _csv_fields(column: Column, cell: Cell) -> list[str]:
    if isinstance(cell, Spread):
        return [repr(value) for value in (cell.mid, min(cell.values), max(cell.values))]
    width = len(_csv_names(column))
    if not isinstance(cell, Figure):
        return [cell or "", *[""] * (width - 1)]
    deviation = "" if cell.deviation is None else repr(cell.deviation)
    return [repr(cell.mean), deviation][:width]


def _csv_sources(sources: tuple[Source, ...], status: str, error: str, base: Path) -> list[str]:
    return [
        ";".join(str(source.record.seed) for source in sources),
        status,
        error,
        ";".join(source.record.key for source in sources),
        ";".join(relative(source.path, base) for source in sources),
    ]


def to_latex(table: Table, base: Path) -> str:
    r"""A `table` for `\usepackage{booktabs,graphicx}`; a comment names the records of each row.

    A table wider than the text is scaled down to it.
    """
    alignment = "".join("l" if column.kind == "text" else "r" for column in table.columns)
    lines = [
        r"\begin{table}",
        r"  \centering",
        r"  \small",
        rf"  \caption{{{_latex_text(table.title)}.}}",
        rf"  \label{{tab:{table.name}}}",
        r"  \resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%",
        rf"  \begin{{tabular}}{{{alignment}}}",
        r"    \toprule",
        "    " + " & ".join(_latex_text(column.title) for column in table.columns) + r" \\",
        r"    \midrule",
    ]
    for row in table.rows:
        lines += [
            f"    % record: {_one_line(relative(source.path, base))}" for source in row.sources
        ]
        cells = [_latex_text(backbone_text(row, column)) for column in table.columns]
        lines.append("    " + " & ".join(cells) + r" \\")
    if not table.rows:
        lines.append(rf"    \multicolumn{{{len(table.columns)}}}{{l}}{{{EMPTY_NOTE}}} \\")
    lines += [r"    \bottomrule", r"  \end{tabular}}"]
    if any(row.has_spread for row in table.rows):
        lines.append(rf"  \par\smallskip {_latex_text(SPREAD_NOTE)}")
    for source in table.failures:
        lines.append(f"  % record: {_one_line(relative(source.path, base))}")
        lines.append(rf"  \par\smallskip {_latex_text(failure_text(source))}")
    lines += [rf"  \par\smallskip {_latex_text(note)}" for note in table.notes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # after a line break, a bare one would be taken for its argument
    "]": "{]}",
    "*": "{*}",
    MISSING: "--",
    "—": "---",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
    "…": r"\dots{}",
    "±": r"$\pm$",
}


_LAST_LATIN = "\u017f"


def _latex_text(text: str) -> str:
    """Escape a text; what pdflatex has no glyph for becomes a question mark."""
    return "".join(
        _LATEX.get(letter, letter if letter.isprintable() and letter <= _LAST_LATIN else "?")
        for letter in _one_line(text)
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())


def print_tables(
    tables: Iterable[Table], console: Console, hidden: Collection[str] = NOT_IN_TERMINAL
) -> None:
    """Print tables to a Rich console, each failed run once; empty tables are passed over.

    Args:
        tables: what to print.
        console: where.
        hidden: keys of columns to leave out, as they hardly fit.
    """
    from rich.text import Text

    failures: dict[Path, Source] = {}
    has_spread = False
    for table in tables:
        failures |= {source.path: source for source in table.failures}
        has_spread |= any(row.has_spread for row in table.rows)
        if table.rows:
            console.print(_rich_table(table, hidden))
        for note in table.notes:
            console.print(Text(note, style="dim"))
    if has_spread:
        console.print(Text(SPREAD_NOTE, style="dim"))
    for source in failures.values():
        console.print(Text(failure_text(source), style="red"))


def _rich_table(table: Table, hidden: Collection[str]) -> RichTable:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    columns = [column for column in table.columns if column.key not in hidden]
    shown = RichTable(title=Text(table.title), title_justify="left", box=box.SIMPLE_HEAD)
    for column in columns:
        justify: Literal["left", "right"] = "left" if column.kind == "text" else "right"
        shown.add_column(Text(column.title), justify=justify, overflow="fold")
    for row in table.rows:
        cells = [Text(backbone_text(row, column)) for column in columns]
        shown.add_row(*cells, style="dim" if row.partial else "")
    return shown

"""Rendering a table: Markdown, CSV, LaTeX and the terminal. Nothing here computes a figure."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from spikebench.report.cells import (
    MISSING,
    UNVERIFIED,
    AnnotatedValue,
    Cell,
    RatioRange,
    SeedValues,
)
from spikebench.report.columns import Column
from spikebench.report.grouping import Group, Source
from spikebench.report.tables import Row, Table
from spikebench.report.terminal_width import NOT_IN_TERMINAL, Fit, fit

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

SPREAD_NOTE = "Over several seeds: mean ± sample standard deviation (number of seeds)."
INTERVAL_NOTE = (
    "Of a single run, in brackets: the 95 % interval, Wilson's for a share of the test images, "
    "else by bootstrap over the test images."
)
EMPTY_NOTE = "No finished run."
LONGEST_ERROR = 200
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


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


def backbone_text(row: Row, column: Column, brief: bool = False) -> str:
    """A cell in plain text, without its interval where `brief`; a partial row is marked."""
    text = column.text(row.cells[column.key], brief)
    return f"{text} (partial)" if column.key == "backbone" and row.partial else text


def relative(path: Path, base: Path) -> str:
    """`path` as seen from the folder `base`, with forward slashes."""
    return Path(os.path.relpath(path.resolve(), base.resolve())).as_posix()


def to_markdown(table: Table, base: Path) -> str:
    """A GitHub table, linked to its records as seen from the folder `base`.

    A last column links to the records of each row; where the whole table has one record, what was
    measured leads to it.
    """
    lines = [f"## {_markdown_text(table.title)}", ""]
    last = ["record"] if table.record is None else []
    if table.rows:
        heads = [*(_markdown_text(column.heading) for column in table.columns), *last]
        rules = ["---" if column.kind == "text" else "---:" for column in table.columns]
        lines += [_markdown_row(heads), _markdown_row([*rules, *("---" for _ in last)])]
    else:
        lines.append(EMPTY_NOTE)
    for row in table.rows:
        cells = [_markdown_cell(row, column, table.record, base) for column in table.columns]
        links = ", ".join(
            _markdown_link(f"seed {source.record.seed}", source.path, base)
            for source in row.sources
        )
        lines.append(_markdown_row([*cells, *(links for _ in last)]))
    lines += [line for note in _reading_notes(table) for line in ("", note)]
    if table.failures or table.superseded:
        lines.append("")
    for source in table.failures:
        text = _markdown_text(failure_text(source))
        lines.append(f"- {text} ({_markdown_link('record', source.path, base)})")
    for source in table.superseded:
        link = _markdown_link(source.record.key, source.path, base)
        lines.append(f"- left out, as a newer record of the same run exists: {link}")
    if table.notes:
        lines += ["", *(f"- {_markdown_text(note)}" for note in table.notes)]
    if table.numbered:
        notes = enumerate(map(_markdown_text, table.numbered), start=1)
        lines += ["", *(f"{number}. {note}" for number, note in notes)]
    return "\n".join(lines) + "\n"


def _reading_notes(table: Table) -> list[str]:
    """What the brackets of a table's figures mean."""
    spread = any(row.has_spread for row in table.rows)
    interval = any(row.has_interval for row in table.rows)
    return [*([SPREAD_NOTE] if spread else []), *([INTERVAL_NOTE] if interval else [])]


def _markdown_cell(row: Row, column: Column, record: Path | None, base: Path) -> str:
    cell = row.cells[column.key]
    if not isinstance(cell, AnnotatedValue):
        return _markdown_text(backbone_text(row, column))
    text = _markdown_text(cell.text)
    if not cell.verified:
        text = f"*{text}*{UNVERIFIED}"
    if cell.measured and record is not None:
        text = _markdown_link(cell.text, record, base)
    return text + cell.numbers


def _markdown_row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _markdown_link(text: str, path: Path, base: Path) -> str:
    return f"[{_markdown_text(text)}]({quote(relative(path, base))})"


def _markdown_text(text: str) -> str:
    text = re.sub(r"([\\|`*\[\]<>&~$])", r"\\\1", " ".join(text.split()))
    # An underscore inside a word is literal in GitHub's Markdown, and reads better unescaped.
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)


def to_csv(table: Table, base: Path) -> str:
    """All rows at full precision and in base units, failed runs with empty figures.

    A measured figure takes two fields: the mean over seeds and, with the suffix `_std`, its
    sample standard deviation; a metric has two more, `_low` and `_high`, for the ends of its 95 %
    interval. A spread takes three: the median, and with the suffixes `_low` and `_high` its range.
    A missing figure is an empty field. Paths are as seen from `base`. A text
    that a spreadsheet would take for a formula has an apostrophe before it.
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
_CSV_INTERVAL = ("_low", "_high")


def _csv_names(column: Column) -> list[str]:
    suffixes = _CSV_SUFFIXES.get(column.kind, ("",)) + _CSV_INTERVAL * column.of_metric
    return [column.key + suffix for suffix in suffixes]


def _csv_fields(column: Column, cell: Cell) -> list[str]:
    if isinstance(cell, RatioRange):
        return [repr(value) for value in (cell.mid, min(cell.values), max(cell.values))]
    width = len(_csv_names(column))
    if not isinstance(cell, SeedValues):
        return [_csv_single(cell), *[""] * (width - 1)]
    more = (cell.deviation, *(cell.interval or (None, None)))
    return [repr(cell.mean), *("" if one is None else repr(one) for one in more)][:width]


def _csv_single(cell: str | AnnotatedValue | None) -> str:
    if isinstance(cell, AnnotatedValue):
        return csv_text(cell.plain) if cell.value is None else repr(cell.value)
    return csv_text(cell or "")


def csv_text(text: str) -> str:
    """A text that no spreadsheet takes for a formula: an apostrophe stands before one."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def _csv_sources(sources: tuple[Source, ...], status: str, error: str, base: Path) -> list[str]:
    return [
        ";".join(str(source.record.seed) for source in sources),
        status,
        csv_text(error),
        ";".join(source.record.key for source in sources),
        ";".join(relative(source.path, base) for source in sources),
    ]


def to_latex(table: Table, base: Path) -> str:
    r"""A `table` for `\usepackage{booktabs,graphicx}`; a comment names the records of each row.

    A table wider than the text is scaled down to it. Numbered notes follow the float, so that
    there may be more of them than a page holds.
    """
    alignment = "".join("l" if column.kind == "text" else "r" for column in table.columns)
    lines = [
        *([] if table.record is None else [f"% record: {_one_line(relative(table.record, base))}"]),
        r"\begin{table}",
        r"  \centering",
        r"  \small",
        *([r"  \setlength{\tabcolsep}{3pt}"] if table.groups else []),
        rf"  \caption{{{_latex_text(table.title)}.}}",
        rf"  \label{{tab:{table.name}}}",
        r"  \resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%",
        rf"  \begin{{tabular}}{{{alignment}}}",
        r"    \toprule",
        *_latex_groups(table),
        "    " + " & ".join(_latex_text(column.title) for column in table.columns) + r" \\",
        r"    \midrule",
    ]
    for row in table.rows:
        lines += [
            f"    % record: {_one_line(relative(source.path, base))}" for source in row.sources
        ]
        cells = [_latex_cell(row, column) for column in table.columns]
        lines.append("    " + " & ".join(cells) + r" \\")
    if not table.rows:
        lines.append(rf"    \multicolumn{{{len(table.columns)}}}{{l}}{{{EMPTY_NOTE}}} \\")
    lines += [r"    \bottomrule", r"  \end{tabular}}"]
    lines += [rf"  \par\smallskip {_latex_text(note)}" for note in _reading_notes(table)]
    for source in table.failures:
        lines.append(f"  % record: {_one_line(relative(source.path, base))}")
        lines.append(rf"  \par\smallskip {_latex_text(failure_text(source))}")
    lines += [rf"  \par\smallskip {_latex_text(note)}" for note in table.notes]
    return "\n".join([*lines, r"\end{table}", *_latex_numbered(table)]) + "\n"


def _latex_groups(table: Table) -> list[str]:
    """The line of headings above the headings, and the rules below them."""
    cells, rules, place = [], [], 1
    for group, width in table.groups:
        cells.append(rf"\multicolumn{{{width}}}{{c}}{{{_latex_text(group)}}}")
        if group:
            rules.append(rf"\cmidrule(lr){{{place}-{place + width - 1}}}")
        place += width
    return ["    " + " & ".join(cells) + r" \\", "    " + " ".join(rules)] if cells else []


def _latex_cell(row: Row, column: Column) -> str:
    cell = row.cells[column.key]
    if not isinstance(cell, AnnotatedValue):
        return _latex_text(backbone_text(row, column))
    text = _latex_text(cell.text)
    if not cell.verified:
        text = rf"\textit{{{text}}}{_latex_text(UNVERIFIED)}"
    numbers = ",".join(map(str, cell.notes))
    if numbers:
        text += rf"\textsuperscript{{{numbers}}}" if cell.text else numbers
    return text


def _latex_numbered(table: Table) -> list[str]:
    if not table.numbered:
        return []
    notes = [
        rf"\textsuperscript{{{number}}}~{_latex_breakable(note)}\par"
        for number, note in enumerate(table.numbered, start=1)
    ]
    about = rf"\textbf{{Notes to Table~\ref{{tab:{table.name}}}}}\par"
    return [r"{\footnotesize\sloppy\setlength{\parindent}{0pt}", about, *notes, "}"]


def _latex_breakable(text: str) -> str:
    """Text whose long words, such as addresses and paths, may be broken."""
    return re.sub(r"(/|\\_|(?<=[a-z])\.(?=[a-z]))", r"\1\\allowbreak{}", _latex_text(text))


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
    "−": "$-$",
    UNVERIFIED: r"\dag{}",
}


_LAST_LATIN = "\u017f"


def _latex_text(text: str) -> str:
    """Escape a text; what pdflatex has no glyph for becomes a question mark."""
    # Hyphens in a row would become a dash.
    parts = re.split("(?<=-)(?=-)", _one_line(text))
    return "{}".join("".join(map(_latex_letter, part)) for part in parts)


def _latex_letter(letter: str) -> str:
    known = letter.isprintable() and letter <= _LAST_LATIN
    return _LATEX.get(letter, letter if known else "?")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def print_tables(
    tables: Iterable[Table], console: Console, hidden: Collection[str] = NOT_IN_TERMINAL
) -> None:
    """Print tables to a Rich console, each failed run once; empty tables are passed over.

    Intervals are in files only. Columns that do not fit give way; a line below the table names
    them.

    Args:
        tables: what to print.
        console: where.
        hidden: keys of columns to leave out in any case.
    """
    from rich.text import Text

    failures: dict[Path, Source] = {}
    has_spread = False
    for table in tables:
        failures |= {source.path: source for source in table.failures}
        has_spread |= any(row.has_spread for row in table.rows)
        notes = list(table.notes)
        notes += [f"({number}) {note}" for number, note in enumerate(table.numbered, start=1)]
        if table.rows:
            texts = {
                c.key: [backbone_text(row, c, brief=True) for row in table.rows]
                for c in table.columns
            }
            found = fit(table.columns, texts, console.width, hidden)
            console.print(_rich_table(table, found))
            if found.left_out:
                names = ", ".join(column.heading for column in found.left_out)
                notes.insert(0, f"hidden (terminal too narrow): {names}")
        for note in notes:
            console.print(Text(note, style="dim"))
    if has_spread:
        console.print(Text(SPREAD_NOTE, style="dim"))
    for source in failures.values():
        console.print(Text(failure_text(source), style="red"))


def _rich_table(table: Table, found: Fit) -> RichTable:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(title=Text(table.title), title_justify="left", box=box.SIMPLE_HEAD)
    for column in found.columns:
        shown.add_column(
            Text(found.heading(column)),
            justify="left" if column.kind == "text" else "right",
            overflow="fold",
            width=found.widths.get(column.key),
        )
    for row in table.rows:
        cells = [_rich_cell(row, column) for column in found.columns]
        shown.add_row(*cells, style="dim" if row.partial else "")
    return shown


def _rich_cell(row: Row, column: Column) -> Text:
    from rich.text import Text

    cell = row.cells[column.key]
    is_unverified = isinstance(cell, AnnotatedValue) and not cell.verified
    return Text(backbone_text(row, column, brief=True), style="italic" if is_unverified else "")

"""Writing tables to files: those of a work folder, and a published one reproduced."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from spikebench.files import write_atomically
from spikebench.papers.record import Reproduction
from spikebench.report.details import detail_tables
from spikebench.report.grouping import select
from spikebench.report.paper_csv import reproduction_csv
from spikebench.report.paper_page import reproduction_page
from spikebench.report.paper_tables import file_stem, reproduction_tables
from spikebench.report.render import to_csv, to_latex, to_markdown
from spikebench.report.speed import speed_table
from spikebench.report.tables import Table, make_tables, with_unique_names
from spikebench.results import MissingResultsError, Record, find_records
from spikebench.speed.record import SpeedRecord, find_speed_records

RENDERERS = {".md": to_markdown, ".csv": to_csv, ".tex": to_latex}


@dataclass(frozen=True)
class Report:
    """What `write_report` made: the tables, and the files that hold them."""

    tables: list[Table]
    paths: list[Path]


class Sources(NamedTuple):
    """What was read: pairs of a file's path and its record."""

    records: list[tuple[Path, Record]]
    speeds: list[tuple[Path, SpeedRecord]]


def read_sources(sources: list[Path]) -> Sources:
    """The records below each of `sources`.

    Raises:
        FileNotFoundError: a source does not exist.
        RecordError: a file is not a whole record.
        MissingResultsError: there is no record at all.
    """
    read = Sources(
        [pair for source in sources for pair in find_records(source)],
        [pair for source in sources for pair in find_speed_records(source)],
    )
    if not any(read):
        places = ", ".join(str(source) for source in sources) or "no folder at all"
        raise MissingResultsError(
            f"no result record in {places}; run `spikebench run` first, or `spikebench speed`"
        )
    return read


def write_report(work_dir: Path, out: Path | None = None) -> Report:
    """Write every table of the records below `work_dir` as Markdown, CSV and LaTeX.

    Figures of classes, and energies of parts of a model, are written as CSV only.

    Args:
        work_dir: a folder of records, or a record file.
        out: the folder for the tables; `work_dir/report` where none is given.

    Raises:
        FileNotFoundError: `work_dir` does not exist.
        RecordError: a file is not a whole record.
        MissingResultsError: there is no record at all.
    """
    work_dir = Path(work_dir)
    records, speeds = read_sources([work_dir])
    tables = [*make_tables(records), *([speed_table(speeds)] if speeds else [])]
    details = detail_tables(select(records))
    named = with_unique_names([*tables, *details])
    tables, details = named[: len(tables)], named[len(tables) :]
    if out is None:
        out = (work_dir if work_dir.is_dir() else work_dir.parent) / "report"
    texts = {
        out / f"{table.name}{suffix}": render(table, out)
        for table in tables
        for suffix, render in RENDERERS.items()
    }
    shown = [table for table in tables if table.rows or table.failures or table.notes]
    whole = [to_markdown(table, out) for table in shown]
    texts |= {out / f"{table.name}.csv": to_csv(table, out) for table in details}
    texts[out / "report.md"] = "\n".join(["# Results\n", *whole])
    for path, text in texts.items():
        write_atomically(path, text)
    return Report(tables, list(texts))


def write_reproduction(path: Path, record: Reproduction, out: Path | None = None) -> list[Path]:
    """Write a reproduced table as Markdown, CSV, LaTeX and a page, and return their paths.

    Args:
        path: the record's file.
        record: what it holds.
        out: the folder for the files; that of the record where none is given.
    """
    out = path.parent if out is None else Path(out)
    tables = reproduction_tables(path, record)
    texts = {
        ".md": "\n".join(to_markdown(table, out) for table in tables),
        ".csv": reproduction_csv(path, record, out),
        ".tex": "\n".join(to_latex(table, out) for table in tables),
        ".html": reproduction_page(path, record, out),
    }
    paths = {suffix: out / f"{file_stem(record)}{suffix}" for suffix in texts}
    for suffix, text in texts.items():
        write_atomically(paths[suffix], text)
    return list(paths.values())

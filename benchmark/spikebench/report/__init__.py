"""Tables, plots and the leaderboard site: pure functions of result files."""

from spikebench.report.paper_tables import reproduction_tables
from spikebench.report.render import print_tables, to_csv, to_latex, to_markdown
from spikebench.report.site import build_site
from spikebench.report.speed import speed_table, work_tables
from spikebench.report.tables import Table, make_tables
from spikebench.report.write import Report, write_report, write_reproduction

__all__ = [
    "Report",
    "Table",
    "build_site",
    "make_tables",
    "print_tables",
    "reproduction_tables",
    "speed_table",
    "to_csv",
    "to_latex",
    "to_markdown",
    "work_tables",
    "write_report",
    "write_reproduction",
]

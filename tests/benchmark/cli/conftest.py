"""Fixtures of published tables, which the command reproduces, too."""

from tests.benchmark.papers.conftest import photographs, weights, write_table

__all__ = ["photographs", "weights", "write_table"]

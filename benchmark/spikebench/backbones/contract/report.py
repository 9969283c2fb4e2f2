"""The result of a check, clause by clause."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from spikebench.backbones import zoo

_NOT_THE_BACKBONE = (Path(torch.__file__).parent, Path(__file__).parent, Path(zoo.__file__))


@dataclass(frozen=True)
class ClauseResult:
    """One clause of the contract, checked.

    Attributes:
        name: as in `CLAUSES`.
        result: whether the backbone passed; a skipped clause could not be checked here.
        reason: what is wrong, or why it was skipped; empty if passed.
        place: where it is wrong: a file and line, a module, parameters or a map.
    """

    name: str
    result: Literal["passed", "failed", "skipped"]
    reason: str = ""
    place: str = ""

    def __str__(self) -> str:
        reason = f": {self.reason}" if self.reason else ""
        place = f" ({self.place})" if self.place else ""
        return f"{self.result}{reason}{place}"


@dataclass(frozen=True)
class ContractReport:
    """All clauses of the contract, checked on one backbone.

    Attributes:
        backbone: its name.
        clauses: in the order of `CLAUSES`.
    """

    backbone: str
    clauses: tuple[ClauseResult, ...]

    @property
    def ok(self) -> bool:
        """Whether no clause failed."""
        return not self.failures

    @property
    def failures(self) -> list[ClauseResult]:
        """The clauses that failed."""
        return [clause for clause in self.clauses if clause.result == "failed"]

    def __str__(self) -> str:
        width = max(len(clause.name) for clause in self.clauses)
        return "\n".join(f"{clause.name:<{width}}  {clause}" for clause in self.clauses)


def place_of(error: Exception) -> str:
    """The innermost line that raised an error, outside of torch and of this check."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if not any(path.is_relative_to(other) for other in _NOT_THE_BACKBONE):
            return f"{path.parent.name}/{path.name}:{frame.lineno}"
    return ""


def definition(what: Callable[..., Any]) -> str:
    """File and line of a function or class; empty if it has no source."""
    try:
        path = Path(inspect.getsourcefile(what) or "")
        line = inspect.getsourcelines(what)[1]
    except (TypeError, OSError):
        return ""
    return f"{path.parent.name}/{path.name}:{line}"

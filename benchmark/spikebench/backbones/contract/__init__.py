"""The contract of a backbone, written once, as a check that anyone can run on theirs.

A clause is a function of a `Builder`: it builds the backbone as often as it needs, feeds it small
inputs and raises `Violation` if the contract is broken, or `Skip` if it cannot be checked. Values
are compared in float64, so that no spike flips because of another order of summation. Random
numbers have seeds of their own. Our neurons run in their reference form, which the other forms
equal by their own tests: compiling takes longer than all clauses together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from spikebench.backbones.contract import behaviour, machine, shape, spikes
from spikebench.backbones.contract.builder import Builder, Skip, Violation, one_thread
from spikebench.backbones.contract.report import ClauseResult, ContractReport, place_of
from spikebench.backbones.zoo import list_backbones
from spikebench.neurons import use_backend
from spikebench.registry import unknown_name

__all__ = ["CLAUSES", "ClauseResult", "ContractReport", "check_backbone"]

CLAUSES: dict[str, Callable[[Builder], None]] = {
    check.__name__: check
    for check in (
        shape.builds,
        shape.feature_maps,
        shape.any_size,
        shape.event_frames,
        spikes.spike_range,
        behaviour.responsive,
        behaviour.fresh_state,
        behaviour.independent_images,
        behaviour.deterministic,
        behaviour.state_dict,
        behaviour.gradients,
        machine.distributed,
        machine.cuda,
        machine.autocast,
    )
}
"""The contract: names to checks, in the order of checking. Their docstrings are the clauses."""

_PREREQUISITES = {"gradients": "responsive", "distributed": "gradients", "autocast": "cuda"}
"""Clauses that would fail for the same reason as another one, which is reported once."""


def check_backbone(name: str, **overrides: Any) -> ContractReport:
    """Check a registered backbone against the contract.

    Args:
        name: as in `list_backbones()`.
        **overrides: arguments of the backbone. `time_steps` is what clauses use that do not need
            another T (2 if not given); `in_channels` also sets the channels of the inputs (by
            default those of that argument, or 3).

    Returns:
        A result for each of `CLAUSES`; an exception inside the backbone is a failed clause.

    Raises:
        UnknownNameError: nothing has that name; the message suggests near ones.

    Example:
        >>> check_backbone("meta_spikeformer_nano").ok
        True
    """
    if name not in list_backbones():
        raise unknown_name("backbone", name, list_backbones())
    builder = Builder(name, overrides)
    results: dict[str, ClauseResult] = {}
    for clause in CLAUSES:
        failed = {name for name, one in results.items() if one.result == "failed"}
        reported = failed & {"builds", _PREREQUISITES.get(clause)}
        if reported:
            results[clause] = ClauseResult(clause, "skipped", f"{reported.pop()} failed")
        else:
            results[clause] = _checked(clause, builder)
    return ContractReport(name, tuple(results.values()))


def _checked(clause: str, builder: Builder) -> ClauseResult:
    try:
        with one_thread(), use_backend("reference"):
            CLAUSES[clause](builder)
    except Skip as skip:
        return ClauseResult(clause, "skipped", str(skip))
    except Violation as violation:
        place = violation.place or builder.place
        return ClauseResult(clause, "failed", str(violation), place)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return ClauseResult(clause, "failed", reason, place_of(error) or builder.place)
    return ClauseResult(clause, "passed")

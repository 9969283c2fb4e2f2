"""The spike-driven check: whether additions suffice for the synaptic operations of a model.

An operation adds where one of its operands carries spikes, binary, scaled or whole numbers; where
all of them carry real values it multiplies. The encoding of the image, which comes before any
neuron, multiplies in every model of static images, and the papers exempt it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from spikebench.energy.operations import OperationReport, OperationRow, Uncounted

NO_NEURONS = "no spiking neurons: every operation multiplies"


@dataclass(frozen=True)
class Audit:
    """What the check found in one form of a model.

    Attributes:
        report: the operation count that was checked.
        encoding: rows that multiply before any neuron has fired.
        real: all other rows that multiply; without neurons, all rows.
        integer: rows an operand of which carries integers, whether they are added or multiplied.
        unseen: rows that count as additions only because they read nothing but zeros: what else
            they would read is not known.
        elementwise: arithmetic outside the rows that is no synaptic operation, such as norms.
        no_rule: what may be synaptic, but is not counted.
        silent: layers of neurons that never fired, by module name.
        saturated: layers of which every neuron fired at every time step.
    """

    report: OperationReport
    encoding: tuple[OperationRow, ...]
    real: tuple[OperationRow, ...]
    integer: tuple[OperationRow, ...]
    unseen: tuple[OperationRow, ...]
    elementwise: tuple[Uncounted, ...]
    no_rule: tuple[Uncounted, ...]
    silent: tuple[str, ...]
    saturated: tuple[str, ...]

    @property
    def addition_only(self) -> bool | None:
        """Whether there are neurons, and no operation behind the encoding multiplies.

        None where that is undecided: nothing was counted, or no multiplication was seen, but
        some operations read only zeros.
        """
        if not self.report.rows and not self.no_rule:
            return None
        if not self.report.neurons or self.real or self.no_rule:
            return False
        return None if self.unseen else True

    @property
    def verdict(self) -> str:
        """The outcome in one line, with shares of the dense work."""
        decided = self.addition_only
        if decided is False and not self.report.neurons:
            return NO_NEURONS
        elementwise = f"elementwise arithmetic: {self._listed(self.elementwise)}"
        zeros = f"only zeros were read in {self._extent(self.unseen)}"
        clauses = []
        if decided:
            clauses.append(
                "addition only" + (f" but for {elementwise}" if self.elementwise else "")
            )
        elif decided is None:
            clauses.append(f"undecided: {zeros if self.unseen else 'nothing was counted'}")
            clauses += [elementwise] if self.elementwise else []
        else:
            reasons = []
            if self.real:
                reasons.append(f"values are multiplied in {self._extent(self.real)}")
            if self.no_rule:
                reasons.append(f"there is no counting rule for {self._listed(self.no_rule)}")
            clauses.append(f"not addition only: {' and '.join(reasons)}")
            clauses += [zeros] if self.unseen else []
        if self.encoding:
            clauses.append(f"the encoding of the image multiplies in {self._extent(self.encoding)}")
        return "; ".join(clauses)

    def share(self, parts: Iterable[OperationRow | Uncounted]) -> float | None:
        """The share that rows or uncounted arithmetic have in all multiplications of the model.

        Args:
            parts: of this report.

        Returns:
            A fraction of `report.dense_work`; None where one of the parts is of unknown size.
        """
        work = [
            part.dense_macs if isinstance(part, OperationRow) else part.multiplications
            for part in parts
        ]
        known = [one for one in work if one is not None]
        if len(known) < len(work) or self.report.dense_work == 0:
            return None
        return sum(known) / self.report.dense_work

    def _extent(self, rows: Sequence[OperationRow]) -> str:
        return f"{len(rows)} of {len(self.report.rows)} operations{self._share_text(rows)}"

    def _share_text(self, parts: Iterable[OperationRow | Uncounted]) -> str:
        share = self.share(parts)
        return (
            " (share not known)" if share is None else f" ({100 * share:.3g} % of the dense work)"
        )

    def _listed(self, parts: Iterable[Uncounted]) -> str:
        by_operation: dict[str, list[Uncounted]] = {}
        for part in parts:
            by_operation.setdefault(part.operation, []).append(part)
        return ", ".join(name + self._share_text(group) for name, group in by_operation.items())


def audit(report: OperationReport) -> Audit:
    """Check the operation count of one form of a model.

    Args:
        report: as `profile_operations` gives it.

    Example:
        >>> row = OperationRow(
        ...     name="conv", kind="conv2d", dense_macs=9.0, dense_macs_unpadded=9.0, encodes=True,
        ...     value_kind="real", rate=1.0, exact_synaptic_operations=9.0)
        >>> audit(OperationReport(images=1, time_steps=1, rows=[row])).verdict
        'no spiking neurons: every operation multiplies'
    """
    spiking = bool(report.neurons)
    encoding = [row for row in report.rows if spiking and row.encodes]
    behind = [row for row in report.rows if not (spiking and row.encodes)]
    return Audit(
        report=report,
        encoding=tuple(row for row in encoding if not row.is_accumulate),
        real=tuple(row for row in behind if not (spiking and row.is_accumulate)),
        integer=tuple(
            row for row in report.rows if "integer" in (row.value_kind, row.other_value_kind)
        ),
        unseen=tuple(row for row in behind if spiking and _reads_only_zeros(row)),
        elementwise=tuple(one for one in report.uncounted if one.reason == "elementwise"),
        no_rule=tuple(one for one in report.uncounted if one.reason == "no rule"),
        silent=tuple(row.name for row in report.neurons if row.rate == 0),
        saturated=tuple(row.name for row in report.neurons if row.rate == 1),
    )


def _reads_only_zeros(row: OperationRow) -> bool:
    """Whether it adds, but no operand that makes it add was seen to be other than zero."""
    operands = ((row.value_kind, row.rate), (row.other_value_kind, row.other_rate or 0.0))
    return row.is_accumulate and all(
        rate == 0 for kind, rate in operands if kind not in (None, "real")
    )

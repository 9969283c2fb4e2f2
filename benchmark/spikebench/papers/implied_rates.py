"""What the reported energy of a row says of its model's firing rates."""

from __future__ import annotations

import logging

from spikebench.energy.estimators import implied_rate, load_estimators
from spikebench.energy.operations import OperationReport
from spikebench.forms import Form
from spikebench.papers.building import time_steps_of
from spikebench.papers.operation_counts import RowCounts
from spikebench.papers.reported import TableRow

log = logging.getLogger("spikebench")

PAPER_ESTIMATOR = "paper-45nm"


def implied_rates(row: TableRow, counts: RowCounts) -> dict[Form, float]:
    """The mean firing rate, in each form, that the reported energy of an SNN means at the row's T.

    A still image is encoded once, whether or not a form runs the encoding T times.
    """
    energy = {**row.seen, **row.unverified}.get("energy_mj")
    fused = row.build is not None and row.build.fused
    if energy is None or fused or not row.spiking:
        return {}
    if all(one.encodes for one in counts.reports["as-coded"].rows):
        log.warning("%s: no neuron was recognised in it, so its energy implies no rate", row.id)
        return {}
    estimator = load_estimators()[PAPER_ESTIMATOR]
    times = time_steps_of(row) / counts.time_steps
    encodings = {form: _encoding_mj(report) for form, report in counts.reports.items()}
    once = min(encodings.values())
    return {
        form: implied_rate(report, float(energy) + encodings[form] - once, estimator) / times
        for form, report in counts.reports.items()
    }


def mean_rate(report: OperationReport) -> float:
    """Mean accumulations per multiply-accumulate behind the encoding, as `implied_rates` has them.

    Of real-valued inputs, which are not accumulated, it is the share that is not zero.
    """
    rows = [row for row in report.rows if not row.encodes]
    total = sum(row.dense_macs for row in rows)
    each = (row.rate if row.accumulations is None else row.accumulations for row in rows)
    return sum(rate * row.dense_macs for rate, row in zip(each, rows, strict=True)) / total


def _encoding_mj(report: OperationReport) -> float:
    """What the papers' rule charges for operations that read the image."""
    macs = sum(row.dense_macs for row in report.rows if row.encodes) * report.time_steps
    return macs * load_estimators()[PAPER_ESTIMATOR].constants["mac_pj"] * 1e-9

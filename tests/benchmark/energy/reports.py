"""Operation counts made up for tests of what reads them."""

from __future__ import annotations

from typing import Any

from spikebench.energy.operations import NeuronRow, OperationReport, OperationRow, Uncounted


def operation(name: str, value_kind: str = "binary", **fields: Any) -> OperationRow:
    """A convolution of 100 multiply-accumulates that reads spikes, a quarter of them ones."""
    defaults = {
        "kind": "conv2d",
        "dense_macs": 100.0,
        "dense_macs_unpadded": 90.0,
        "rate": 0.25,
        "exact_synaptic_operations": 20.0,
    }
    return OperationRow(name=name, value_kind=value_kind, **{**defaults, **fields})


def product(name: str, first: str, second: str, **fields: Any) -> OperationRow:
    """A matrix product of two activations, a quarter and half of whose values are not zero."""
    others = {"other_value_kind": second, "other_rate": 0.5}
    return operation(name, first, **{"kind": "matmul", **others, **fields})


def neurons(name: str, rates: list[float], **fields: Any) -> NeuronRow:
    """A layer of 8 neurons and its rate at each time step."""
    rate = sum(rates) / len(rates)
    defaults = {
        "kind": "LIF",
        "neurons": 8.0,
        "updates": 8.0 * len(rates),
        "state_bytes": 32.0,
        "rate": rate,
        "rates": rates,
        "spikes": 8.0 * sum(rates),
    }
    return NeuronRow(name=name, **{**defaults, **fields})


def norm(name: str, multiplications: float | None = 10.0, **fields: Any) -> Uncounted:
    """A batch norm that was left out of the count."""
    defaults = {"operation": "aten::batch_norm", "reason": "elementwise"}
    return Uncounted(name=name, multiplications=multiplications, **{**defaults, **fields})


FIRING = neurons("lif", [0.25, 0.5])


def report(*rows: OperationRow, **fields: Any) -> OperationReport:
    """The count of 2 images at T = 2 of a model with one layer of neurons, `lif`."""
    defaults: dict[str, Any] = {"images": 2, "time_steps": 2, "neurons": [FIRING]}
    return OperationReport(rows=list(rows), **{**defaults, **fields})

"""What an operation count is: plain data, read by estimators and reports without torch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

ValueKind = Literal["binary", "scaled", "integer", "real"]
"""What the non-zero inputs of an operation are: all 1; all one constant (it folds into the weight);
whole numbers; anything."""


class OperationRow(BaseModel):
    """One synaptic operation of a model, counted over a data set.

    Attributes:
        name: the module that runs it, as in `named_modules()`.
        kind: conv1d, conv2d, conv3d, conv_transpose2d..., linear, or matmul (two activations).
        dense_macs: multiply-accumulates per image and time step, padded positions counted.
        dense_macs_unpadded: the same without the positions that padding adds.
        value_kind: what the input carries; of a matmul, the kind of its first operand.
        rate: share of non-zero inputs; of a matmul, in its first operand.
        other_value_kind: of a matmul, the kind of the second operand; otherwise None.
        other_rate: of a matmul, the share of non-zero values in the second operand.
        exact_synaptic_operations: for every non-zero input the weights it meets (of a matmul, the
            pairs of non-zero values that meet), mean per image, summed over time steps.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    kind: str
    dense_macs: float
    dense_macs_unpadded: float
    value_kind: ValueKind
    rate: float
    other_value_kind: ValueKind | None = None
    other_rate: float | None = None
    exact_synaptic_operations: float

    @property
    def is_accumulate(self) -> bool:
        """Whether additions suffice: at least one operand is binary, scaled binary or integer."""
        return self.value_kind != "real" or self.other_value_kind not in (None, "real")


class OperationReport(BaseModel):
    """All synaptic operations of a model, streamed over `images` images.

    Attributes:
        images: how many images were counted.
        time_steps: time steps per image; `dense_macs` of the rows are per time step.
        rows: one per operation, in the order of first execution.
        firing_rates: mean share of spikes of each neuron layer, by module name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: int
    time_steps: int
    rows: list[OperationRow]
    firing_rates: dict[str, float]

    @property
    def dense_macs(self) -> float:
        """Multiply-accumulates per image and time step."""
        return sum(row.dense_macs for row in self.rows)

    @property
    def synaptic_operations(self) -> float:
        """Exact synaptic operations per image, summed over time steps."""
        return sum(row.exact_synaptic_operations for row in self.rows)

    @property
    def firing_rate(self) -> float | None:
        """Mean firing rate over neuron layers, each layer counting once; None without neurons."""
        rates = self.firing_rates.values()
        return sum(rates) / len(rates) if rates else None

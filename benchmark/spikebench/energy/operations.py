"""What an operation count is: plain data, read by estimators and reports without torch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from spikebench.forms import Form

ValueKind = Literal["binary", "scaled", "integer", "real"]
"""What the non-zero inputs of an operation are: all 1; all one constant (it folds into the weight);
whole numbers; anything."""


class _Counted(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class OperationRow(_Counted):
    """One synaptic operation of a model, counted over a data set.

    Attributes:
        name: the module that runs it, as in `named_modules()`.
        kind: conv1d, conv2d, conv3d, conv_transpose2d..., linear, matmul (two activations), or mul
            (spikes that mask another activation, value by value).
        dense_macs: multiply-accumulates per image and time step, padded positions counted.
        dense_macs_unpadded: the same without the positions that padding adds.
        inputs: input values read, per image and time step; of a matmul or mul, of its first
            operand.
        outputs: output values written, per image and time step.
        weights: values of the weight; 0 where both operands are activations.
        encodes: whether no neuron has fired before it: what it reads comes from the image alone.
        value_kind: what the input carries; of a matmul or mul, the kind of its first operand.
        value_range: the lowest and the highest value of the input, zero included.
        rate: share of non-zero inputs; of a matmul or mul, in its first operand.
        rates: the rate at each time step; empty where the time steps cannot be told apart.
        rate_std: sample standard deviation of the rate over images; None where the images cannot
            be told apart, or there is but one.
        magnitude: mean absolute value of the inputs, zeros included, of whole numbers: what an
            integer costs in accumulations. None of real ones.
        other_inputs: of a matmul or mul, the values of the second operand; otherwise 0.
        other_value_kind: of a matmul or mul, the kind of the second operand; otherwise None.
        other_value_range: of a matmul or mul, the range of the second operand.
        other_rate: of a matmul or mul, the share of non-zero values in the second operand.
        other_magnitude: of a matmul or mul, the magnitude of the second operand.
        exact_synaptic_operations: for every non-zero input the weights it meets (of a matmul or
            mul, the pairs of non-zero values that meet), mean per image, summed over time steps.
            Where integers are accumulated, n counts n times.
        exact_std: its sample standard deviation over images, or None as for `rate_std`.
    """

    name: str
    kind: str
    dense_macs: float
    dense_macs_unpadded: float
    inputs: float = 0.0
    outputs: float = 0.0
    weights: int = 0
    encodes: bool = False
    value_kind: ValueKind
    value_range: tuple[float, float] | None = None
    rate: float
    rates: list[float] = []
    rate_std: float | None = None
    magnitude: float | None = None
    other_inputs: float = 0.0
    other_value_kind: ValueKind | None = None
    other_value_range: tuple[float, float] | None = None
    other_rate: float | None = None
    other_magnitude: float | None = None
    exact_synaptic_operations: float
    exact_std: float | None = None

    @property
    def accumulations(self) -> float | None:
        """Accumulations for each dense multiply-accumulate; None where values are multiplied.

        The rate of the operand that is binary or scaled binary, the magnitude of one that is
        integer spikes. Integers that no neuron has fired, such as the pixels or event counts that
        the first convolution reads, are multiplied.
        """
        spikes = self._spikes
        return None if spikes is None else spikes[0]

    @property
    def spikes(self) -> float | None:
        """Spikes read per image and time step; None where values are multiplied."""
        spikes = self._spikes
        return None if spikes is None else spikes[0] * spikes[1]

    @property
    def _spikes(self) -> tuple[float, float] | None:
        """Of the operand that carries spikes: the mean spike, zeros included, and its size."""
        operands = [
            (self.value_kind, self.rate, self.magnitude, self.inputs),
            (self.other_value_kind, self.other_rate, self.other_magnitude, self.other_inputs),
        ]
        for kind, rate, _, inputs in operands:
            if kind in ("binary", "scaled") and rate is not None:
                return rate, inputs
        for kind, _, magnitude, inputs in operands:
            if kind == "integer" and magnitude is not None and not self.encodes:
                return magnitude, inputs
        return None

    @property
    def is_accumulate(self) -> bool:
        """Whether additions suffice."""
        return self.accumulations is not None


class NeuronRow(_Counted):
    """One layer of neurons, counted over a data set.

    Attributes:
        name: the layer, as in `named_modules()`.
        kind: its class.
        neurons: how many neurons there are per image.
        updates: membrane updates per image, summed over time steps.
        additions: additions in one update.
        multiplications: multiplications in one update, such as the leak.
        state_bytes: membrane memory per image, at the width the model ran in.
        rate: mean share of neurons that fire at a time step.
        rates: the rate at each time step; empty where the time steps cannot be told apart.
        rate_std: sample standard deviation of the rate over images; None where the images cannot
            be told apart, or there is but one.
        spikes: spikes per image, summed over time steps; an integer n counts n times.
    """

    name: str
    kind: str
    neurons: float
    updates: float
    additions: int = 1
    multiplications: int = 1
    state_bytes: float
    rate: float
    rates: list[float] = []
    rate_std: float | None = None
    spikes: float


class Uncounted(_Counted):
    """Arithmetic that is in no row of the count, and how much of it there is.

    Attributes:
        name: the module that runs it.
        operation: what runs, such as `aten::native_batch_norm`.
        reason: "elementwise" (norms, scales, gates, activation functions), or "no rule" where
            weights or activations meet in a way that is not known.
        multiplications: per image and time step, an estimate where there is no rule; None where
            nothing is known of it.
    """

    name: str
    operation: str
    reason: Literal["elementwise", "no rule"]
    multiplications: float | None


class OperationReport(_Counted):
    """All synaptic operations of a model, streamed over `images` images.

    Attributes:
        form: the form of the model that was counted.
        images: how many images were counted.
        time_steps: time steps per image; `dense_macs` of the rows are per time step.
        rows: one per operation, in the order of first execution.
        neurons: one per layer of neurons, in the order of first execution.
        uncounted: everything else that multiplies.
        synaptic_operations_std: sample standard deviation of the synaptic operations over images;
            None where the images cannot be told apart, or there is but one.
    """

    form: Form = "as-coded"
    images: int
    time_steps: int
    rows: list[OperationRow]
    neurons: list[NeuronRow] = []
    uncounted: list[Uncounted] = []
    synaptic_operations_std: float | None = None

    @property
    def dense_macs(self) -> float:
        """Multiply-accumulates per image and time step."""
        return sum(row.dense_macs for row in self.rows)

    @property
    def synaptic_operations(self) -> float:
        """Exact synaptic operations per image, summed over time steps."""
        return sum(row.exact_synaptic_operations for row in self.rows)

    @property
    def firing_rates(self) -> dict[str, float]:
        """Mean share of spikes of each layer of neurons, by module name."""
        return {row.name: row.rate for row in self.neurons}

    @property
    def firing_rate(self) -> float | None:
        """Mean firing rate over neuron layers, each layer counting once; None without neurons."""
        rates = [row.rate for row in self.neurons]
        return sum(rates) / len(rates) if rates else None

    @property
    def dense_work(self) -> float:
        """All multiplications per image and time step, those of `uncounted` included."""
        return self.dense_macs + sum(row.multiplications or 0.0 for row in self.uncounted)

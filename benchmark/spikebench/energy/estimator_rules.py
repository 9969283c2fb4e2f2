"""The rules by which estimators charge operation counts: functions of a report and of constants.

A rule takes an operation count, and its constants as keyword arguments, and yields picojoules per
image, summed over time steps, by the name of a row; a name may come twice. The equations and their
sources are in `README.md` in this folder.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator

from spikebench.energy.operations import NeuronRow, OperationReport, OperationRow
from spikebench.registry import collision

Charges = Iterator[tuple[str, float]]
Rule = Callable[..., Charges]

RULES: dict[str, Rule] = {}
"""The rules by name."""


def rule(charge: Rule) -> Rule:
    """Register a rule under the name of its function; usable as a decorator.

    Raises:
        CollisionError: another rule has that name.
    """
    name = charge.__name__
    if name in RULES and _place(RULES[name]) != _place(charge):
        raise collision("rule", name, _place(RULES[name]), _place(charge))
    RULES[name] = charge
    return charge


def constants_of(charge: Rule) -> list[str]:
    """The names of the constants that a rule needs: its keyword-only arguments."""
    parameters = inspect.signature(charge).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]


def _place(charge: Rule) -> str:
    return f"{charge.__module__}.{charge.__qualname__}"


@rule
def rate(report: OperationReport, *, mac_pj: float, ac_pj: float) -> Charges:
    """Charge every dense MAC, padding included, with the mean rate of its spikes."""
    for row in report.rows:
        each = mac_pj if row.accumulations is None else row.accumulations * ac_pj
        yield row.name, row.dense_macs * report.time_steps * each


@rule
def exact(report: OperationReport, *, mac_pj: float, ac_pj: float) -> Charges:
    """Charge every non-zero value that meets a weight."""
    for row in report.rows:
        yield row.name, row.exact_synaptic_operations * (ac_pj if row.is_accumulate else mac_pj)


@rule
def dense(report: OperationReport, *, mac_pj: float) -> Charges:
    """Charge every dense MAC as a multiplication, whatever the values."""
    for row in report.rows:
        yield row.name, row.dense_macs * report.time_steps * mac_pj


@rule
def lemaire(
    report: OperationReport,
    *,
    add_pj: float,
    mul_pj: float,
    sram_pj: float,
    sram_pj_per_bit: float,
    word_bits: float,
    fifo_words: float,
) -> Charges:
    """Charge operations, memory accesses, addressing and neurons."""
    mac_pj = mul_pj + add_pj

    def access_pj(words: float) -> float:
        return sram_pj + sram_pj_per_bit * word_bits * words

    message_pj = access_pj(fifo_words)

    def synapses(row: OperationRow) -> float:
        convolves = row.kind.startswith("conv")
        inputs, outputs = row.inputs * report.time_steps, row.outputs * report.time_steps
        biases = outputs if row.weights else 0.0
        parameter_pj = access_pj(row.weights or row.other_inputs)
        if row.spikes is None:
            macs = row.dense_macs * report.time_steps
            kernel = row.weights * report.time_steps if convolves else 0.0
            operations = macs * mac_pj + biases * add_pj
            addressing = (inputs + outputs + kernel) * add_pj
            memory = (
                (macs if convolves else inputs) * access_pj(row.inputs)
                + (macs + biases) * parameter_pj
                + outputs * access_pj(row.outputs)
            )
        else:
            met = row.exact_synaptic_operations
            spikes = row.spikes * report.time_steps
            operations = (met + biases) * add_pj
            addressing = met * add_pj + (2 * spikes * mac_pj if convolves else 0.0)
            memory = (
                spikes * message_pj
                + (met + biases) * parameter_pj
                + 2 * met * access_pj(row.outputs)
            )
        return operations + addressing + memory

    def membranes(row: NeuronRow) -> float:
        update_pj = row.additions * add_pj + row.multiplications * mul_pj
        memory = 2 * row.updates * access_pj(row.neurons) + row.spikes * message_pj
        return row.updates * update_pj + row.spikes * add_pj + memory

    for operation in report.rows:
        yield operation.name, synapses(operation)
    for layer in report.neurons:
        yield layer.name, membranes(layer)

"""Spiking neurons over time: every one maps currents (T, ...) to spikes (T, ...)."""

from spikebench.neurons.backends import BackendError, available_backends, use_backend
from spikebench.neurons.modules import (
    IF,
    ILIF,
    LIF,
    NEURONS,
    PLIF,
    PSN,
    Neuron,
    UpdateCost,
    binary_steps,
    is_neuron,
    neuron_factory,
    sum_steps,
    update_cost,
)
from spikebench.neurons.surrogate import SURROGATES

__all__ = [
    "IF",
    "ILIF",
    "LIF",
    "NEURONS",
    "PLIF",
    "PSN",
    "SURROGATES",
    "BackendError",
    "Neuron",
    "UpdateCost",
    "available_backends",
    "binary_steps",
    "is_neuron",
    "neuron_factory",
    "sum_steps",
    "update_cost",
    "use_backend",
]

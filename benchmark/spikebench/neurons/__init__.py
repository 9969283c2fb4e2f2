"""Spiking neurons over time: each maps currents (T, ...) to spikes (T, ...).

Importing this package registers them in `spikebench.registry.NEURONS`.
"""

from spikebench.neurons.backends import BackendError, available_backends, use_backend
from spikebench.neurons.base import (
    Neuron,
    NeuronName,
    UpdateCost,
    is_neuron,
    neuron_factory,
    spike_levels,
    update_cost,
)
from spikebench.neurons.ilif import ILIF, binary_steps, sum_steps
from spikebench.neurons.lif import IF, LIF, PLIF
from spikebench.neurons.psn import PSN
from spikebench.neurons.surrogate import SURROGATES

__all__ = [
    "IF",
    "ILIF",
    "LIF",
    "PLIF",
    "PSN",
    "SURROGATES",
    "BackendError",
    "Neuron",
    "NeuronName",
    "UpdateCost",
    "available_backends",
    "binary_steps",
    "is_neuron",
    "neuron_factory",
    "spike_levels",
    "sum_steps",
    "update_cost",
    "use_backend",
]

"""Spiking neurons over time: every one maps currents (T, ...) to spikes (T, ...)."""

from benchmark.neurons.lif import LIF, Neuron, lif

__all__ = ["LIF", "Neuron", "lif"]

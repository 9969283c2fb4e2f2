"""The golden figures of published models, and our models on their weights: golden/README.md."""

import ast
import json
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

import spikebench

FOLDER = Path(__file__).parent / "golden"


class Golden:
    """One published model: figures, and what they were computed from."""

    def __init__(self, name):
        self.name = name
        self.operations = self._read("ops")
        self.outputs = {case["T"]: case for case in self._read("outputs")}

    def _read(self, what):
        return json.loads((FOLDER / f"{self.name}_{what}.json").read_text(encoding="utf-8"))

    def weights(self):
        """The state dict under the published names, in float64."""
        text = (FOLDER / f"{self.name}_keys.txt").read_text(encoding="utf-8")
        rows = (line.split("\t") for line in text.splitlines() if not line.startswith("#"))
        return {key: golden_tensor(key, ast.literal_eval(shape)) for key, shape, _ in rows}

    def input(self, shape=(2, 3, 64, 64), rng_seed=7):
        """The images, `(B, 3, H, W)`, in float64."""
        return torch.from_numpy(np.random.default_rng(rng_seed).standard_normal(shape))

    def classifier(self, time_steps):
        """Our classifier on the golden weights, in float64 and eval mode."""
        model = spikebench.build_classifier(self.name, num_classes=1000, time_steps=time_steps)
        return spikebench.load_weights(model.double(), self.weights()).eval()


def golden_tensor(key, shape):
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    last = key.rpartition(".")[-1]
    if last == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.int64)
    if last == "running_mean":
        values = 0.1 * rng.standard_normal(shape)
    elif last == "running_var":
        values = rng.uniform(0.5, 1.5, shape)
    elif len(shape) >= 2:
        values = rng.standard_normal(shape) / math.sqrt(math.prod(shape[1:]))
    elif last == "weight":
        values = rng.uniform(1.0, 3.0, shape)
    else:
        values = rng.uniform(-0.5, 1.0, shape)
    return torch.from_numpy(values)


@pytest.fixture(scope="session")
def golden():
    """The published Meta-SpikeFormer 15M: operations, outputs[T], input() and classifier(T)."""
    return Golden("meta_spikeformer_15m")

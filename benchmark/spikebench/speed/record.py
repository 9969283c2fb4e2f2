"""The record of a speed measurement: every time that was taken, read without torch.

Reports work all their figures out from it (`spikebench.speed.figures`), so that each of them can be
traced to the raw times.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Literal

from pydantic import Field

from spikebench import forms
from spikebench.files import write_atomically
from spikebench.results import SPEED_RECORDS, MissingResultsError, Strict, read_as

SCHEMA_VERSION: Literal[1] = 1

Subject = Literal["model", "lif", "matmul"]
Mode = Literal["inference", "train"]
Precision = Literal["float32", "bfloat16"]
Form = Literal[forms.Form, "event"]

_SUBJECTS = {"model": "", "lif": "LIF ", "matmul": "matmul "}


class Settings(Strict):
    """What all contenders run: one classifier on one batch of random images.

    Attributes:
        backbone_name: a registered backbone.
        batch_size: images in a batch.
        image_size: pixels each side.
        device: "cpu" or "cuda".
        seed: of weights, images and labels.
    """

    backbone_name: str
    time_steps: int
    batch_size: int
    image_size: int
    num_classes: int
    device: str
    seed: int = 0


class Contender(Strict):
    """One way to run it.

    Attributes:
        subject: the model; one LIF layer alone; or a product of two square matrices.
        mode: a forward pass, or a training step; of a LIF layer, forward and backward.
        neurons: a backend of `spikebench.neurons`, or "spikingjelly-" and an implementation of
            SpikingJelly's; empty for a matrix product.
        form: the model as coded; a deploy form of `spikebench.inference.deploy`; or "event", the
            dense one with `use_event_convs`, chosen on the images that are timed.
    """

    subject: Subject = "model"
    mode: Mode = "inference"
    neurons: str = ""
    precision: Precision = "float32"
    form: Form = "as-coded"
    channels_last: bool = False
    grad_checkpointing: bool = False

    @property
    def work(self) -> str:
        """What is timed: contenders of the same work are compared."""
        return _SUBJECTS[self.subject] + ("training" if self.mode == "train" else self.mode)

    @property
    def has_reference(self) -> bool:
        """Whether its spikes should be those of the reference, rounding apart."""
        return self.work == "inference" and self.precision == "float32"

    @property
    def layout(self) -> str:
        """The order of a map's values in memory."""
        return "channels last" if self.channels_last else "contiguous"

    @property
    def label(self) -> str:
        """Its settings in a few words, those that are not the default."""
        parts = [
            self.neurons,
            self.precision,
            "" if self.form == "as-coded" else self.form,
            "channels last" if self.channels_last else "",
            "gradient checkpointing" if self.grad_checkpointing else "",
        ]
        return ", ".join(part for part in parts if part)


class Timing(Strict):
    """What was measured of one contender.

    Attributes:
        seconds: for each round the time of each batch (of each product, for matrices).
        warm_up_s: the calls before, the first of which compiles.
        peak_memory_bytes: for each round the largest memory in use, as the record's `memory` says.
        model_memory_bytes: memory in use once the model was built, before its first call.
        spikes_equal: share of the spikes of all neurons that equal the reference's on the same
            images; None where it was not asked (training, half precision).
        error: why it failed; then it has no other figures.
    """

    contender: Contender
    seconds: list[list[float]] = Field(default_factory=list)
    warm_up_s: list[float] = Field(default_factory=list)
    peak_memory_bytes: list[int] = Field(default_factory=list)
    model_memory_bytes: int | None = None
    spikes_equal: float | None = None
    error: str | None = None


class SpeedRecord(Strict):
    """One measurement: all its contenders, taken in turns on one machine.

    Attributes:
        key: hash of the settings, the contenders and the device.
        against: whose speed the ratios are relative to: the fastest contender of the first
            precision whose neurons start so; the first contender where it is empty.
        parameters: of the classifier as coded.
        dense_macs: of the classifier as coded, per image and time step.
        firing_rate: mean share of spikes over neuron layers; None without neurons.
        optimizer: what a training step ends with.
        memory: how memory was measured.
        matmul_size: rows and columns of the matrices whose product gives the floor.
        layer_shape: channels, height and width of the maps that a LIF layer alone is given.
        environment: variables that decide how threads and memory are used.
        wall_time_s: of the whole measurement.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    kind: Literal["speed"] = "speed"
    key: str
    settings: Settings
    against: str
    parameters: int
    dense_macs: float
    firing_rate: float | None
    optimizer: str
    memory: str
    matmul_size: int
    layer_shape: tuple[int, int, int]
    timings: list[Timing]
    environment: dict[str, str] = Field(default_factory=dict)
    packages: dict[str, str] = Field(default_factory=dict)
    commit: str | None = None
    device: str
    started: str
    wall_time_s: float

    @property
    def backbone_name(self) -> str:
        """The registered backbone."""
        return self.settings.backbone_name

    @property
    def seed(self) -> int:
        """Seed of weights, images and labels."""
        return self.settings.seed

    @property
    def failures(self) -> list[Timing]:
        """Contenders that ended in an error."""
        return [timing for timing in self.timings if timing.error is not None]


def speed_key(settings: Settings, contenders: list[Contender], device: str) -> str:
    """What tells one measurement from another: measured again, it takes the older one's place."""
    described = [settings.model_dump(), [one.model_dump() for one in contenders], device]
    text = json.dumps(described, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def write_speed_record(record: SpeedRecord, folder: Path) -> Path:
    """Write `folder/speed-<backbone>-<key>.json`, whole or not at all, and return its path."""
    path = folder / f"speed-{record.backbone_name}-{record.key}.json"
    write_atomically(path, record.model_dump_json(indent=1) + "\n")
    return path


def find_speed_records(root: Path) -> list[tuple[Path, SpeedRecord]]:
    """Every speed record below `root` (or `root` itself, if it is one), sorted by path.

    Raises:
        MissingResultsError: `root` does not exist.
        RecordError: a file is not a whole speed record.
    """
    root = Path(root)
    if not root.exists():
        raise MissingResultsError(f"no such file or folder: {root}")
    paths = [root] if root.is_file() else sorted(root.rglob(SPEED_RECORDS))
    return [(path, read_as(SpeedRecord, path)) for path in paths if path.match(SPEED_RECORDS)]

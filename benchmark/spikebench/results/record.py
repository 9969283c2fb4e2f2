"""The result record of a run: the only thing that tables, plots and leaderboards read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from spikebench.energy.operations import OperationReport
from spikebench.errors import UserError

SCHEMA_VERSION: Literal[2] = 2


class RecordError(UserError, ValueError):
    """A record file cannot be read; the message names the file and says what to do."""


class Strict(BaseModel):
    """Base of what is written to record files."""

    # JSON has no nan: it would be written as null, and the record could not be read again
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


AnyRecord = TypeVar("AnyRecord", bound=Strict)


class Metric(Strict):
    """One figure at full precision.

    Attributes:
        value: the figure, in `unit`; a figure that is not defined is left out, never nan.
        unit: "fraction" (0 to 1) unless said otherwise.
        higher_is_better: which way is up.
        interval: low and high end of its 95 % interval over test images, where one was worked out.
    """

    value: float
    unit: str = "fraction"
    higher_is_better: bool = True
    interval: tuple[float, float] | None = None


class BackboneInfo(Strict):
    """Which backbone ran, and with which arguments."""

    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    time_steps: int
    parameters: int = Field(description="parameters of the backbone alone")


class DatasetInfo(Strict):
    """The data set and split of training and scoring.

    Attributes:
        name: the data set.
        split: the split that the metrics are of.
        train_samples: images seen in training; None where the weights were trained elsewhere.
        test_samples: images that the metrics are of.
    """

    name: str
    split: str
    train_samples: int | None = None
    test_samples: int


class Record(Strict):
    """The result of one run: one (backbone, task, data set, protocol, seed).

    A failed run has `error` and no figures; a partial one (``--limit``) stays out of leaderboards.

    Attributes:
        key: hash of all that decides the result: configuration (without paths and devices),
            backbone, seed, limit, initial weights.
        protocol: the name of the configuration file the run was made from.
        per_class: a figure of each class, by metric and the name of the class; a class that has
            none, as it is in no test image, is left out.
        by_time_steps: a metric as it is after 1, 2, ... T time steps of one pass, by metric; empty
            for T = 1, and where a task does not tell.
        parameters: of the whole model (backbone, neck and heads).
        views: how many views of each test image were scored, and are in the energies.
        operations: the operation count of the model as coded, on one view of an image, or None
            where the run failed.
        paper_operations: the same in the form that the papers' energies assume.
        energy_mj: energy per image in millijoules, by estimator id.
        energy_by_part: the same of each part (backbone, neck, ...), by estimator id and part.
        measured_energy_mj: energy per image in millijoules that a meter read, by meter; empty
            where there is none.
        resumed: whether training went on from a checkpoint of an interrupted run.
        wall_time_s: seconds by phase (train, evaluate, profile); of the last part, if resumed, and
            without train where weights were given.
    """

    schema_version: Literal[2] = SCHEMA_VERSION
    key: str
    suite: str
    status: Literal["finished", "failed"]
    partial: bool = False
    error: str | None = None
    backbone: BackboneInfo | None = None
    backbone_name: str
    task: str
    protocol: str
    dataset: DatasetInfo | None = None
    seed: int
    metrics: dict[str, Metric] = Field(default_factory=dict)
    per_class: dict[str, dict[str, float]] = Field(default_factory=dict)
    by_time_steps: dict[str, list[float]] = Field(default_factory=dict)
    parameters: int | None = None
    views: int = 1
    operations: OperationReport | None = None
    paper_operations: OperationReport | None = None
    energy_mj: dict[str, float] = Field(default_factory=dict)
    energy_by_part: dict[str, dict[str, float]] = Field(default_factory=dict)
    measured_energy_mj: dict[str, float] = Field(default_factory=dict)
    checkpoint_sha256: str | None = None
    config: dict[str, Any] = Field(default_factory=dict)
    packages: dict[str, str] = Field(default_factory=dict)
    commit: str | None = None
    device: str
    started: str
    resumed: bool = False
    wall_time_s: dict[str, float] = Field(default_factory=dict)


def read_record(path: Path) -> Record:
    """Read one record.

    Raises:
        RecordError: the file is not a whole record of this schema.
    """
    return read_as(Record, path)


def read_as(kind: type[AnyRecord], path: Path) -> AnyRecord:
    """Read a record file of one kind.

    Raises:
        RecordError: the file is not a whole record of that kind.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        schema = kind.model_fields["schema_version"].default
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise RecordError(
            f"{path} is not a result record of schema {schema}: {where}: {first['msg']}; "
            "move it away and run again"
        ) from None

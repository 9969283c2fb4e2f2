"""What a task is to the core: something that trains, scores and shows a model to the counter."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from spikebench.datacheck import SplitCheck
from spikebench.errors import UserError
from spikebench.files import data_root
from spikebench.results import BackboneInfo, DatasetInfo


class MetricSpec(NamedTuple):
    """Unit of a metric, and which way is up."""

    unit: str = "fraction"
    higher_is_better: bool = True


@dataclass(frozen=True)
class Run:
    """One (backbone, task, data set, protocol, seed), and where its work lands.

    Attributes:
        key: hash of `config` and what else decides the result.
        suite: name of the suite.
        backbone: registered name.
        task: registered name.
        protocol: name of the configuration file, without folder and suffix.
        seed: seeds everything random.
        config: the resolved configuration, plain data.
        folder: checkpoints, logs and the record of this run.
        tensorboard: folder of this run's TensorBoard events.
        limit: use only so many images of each split; None uses all.
        data_root: the folder that holds one folder per data set.
    """

    key: str
    suite: str
    backbone: str
    task: str
    protocol: str
    seed: int
    config: dict[str, Any]
    folder: Path
    tensorboard: Path
    limit: int | None = None
    data_root: Path = field(default_factory=data_root)

    @property
    def title(self) -> str:
        """How the run is called on screen."""
        return f"{self.task}/{self.backbone}/{self.protocol}/seed{self.seed}"


class Evaluation(NamedTuple):
    """Metrics by name, at full precision, and what they are of.

    Attributes:
        metrics: by name.
        dataset: what they are of.
        intervals: the 95 % interval, low and high end, of each metric that has one.
        per_class: a figure of each class, by metric and the name of the class.
        by_time_steps: a metric as it is after 1, 2, ... T time steps of one pass, by metric.
    """

    metrics: dict[str, float]
    dataset: DatasetInfo
    intervals: Mapping[str, tuple[float, float]] = MappingProxyType({})
    per_class: Mapping[str, dict[str, float]] = MappingProxyType({})
    by_time_steps: Mapping[str, list[float]] = MappingProxyType({})


class Probe(NamedTuple):
    """What operations are counted on: `forward(model, batch)` for each batch of images.

    The batches can be gone over again. Where test images are augmented, each image is in as many
    batches as it has views.
    """

    model: Any
    batches: Iterable[Any]
    forward: Callable[[Any, Any], Any]
    backbone: BackboneInfo
    views: int = 1


class Task(ABC):
    """A way to train and score a backbone; found through the entry-point group spikebench.tasks.

    Attributes:
        metrics: the metrics that `evaluate` returns.
        distributed: whether several processes may do one run together.
    """

    metrics: Mapping[str, MetricSpec]
    distributed: bool = False

    @abstractmethod
    def resolve(
        self,
        config: Path,
        backbone: str | None,
        arguments: Mapping[str, Any],
        overrides: Sequence[str],
    ) -> dict[str, Any]:
        """The configuration file with backbone and overrides put in, as plain data.

        Args:
            config: the configuration file.
            backbone: registered name; None leaves the one that the file names.
            arguments: arguments of the backbone, from the suite.
            overrides: `key.path=value`; the key must be in the configuration.

        Raises:
            ConfigError: the file cannot be read, or an override names no key of it.
        """

    def for_scoring(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """A resolved configuration less what training alone reads, such as a teacher's weights."""
        return dict(config)

    @abstractmethod
    def train(self, run: Run) -> Path:
        """Train, resuming from the last whole checkpoint in `run.folder`; the final checkpoint."""

    @abstractmethod
    def evaluate(self, run: Run, checkpoint: Path) -> Evaluation:
        """Score a checkpoint on the test split."""

    @abstractmethod
    def probe(self, run: Run, checkpoint: Path) -> Probe:
        """The trained model and batches of real test images, for the operation count."""

    def sketch(self, config: Mapping[str, Any]) -> Probe:
        """The untrained model and one random image, where there are neither data nor weights.

        It tells what follows from the architecture and the size of the image: parameters and dense
        operations. Rates and accuracies it does not tell.

        Args:
            config: what `resolve` returned.

        Returns:
            The model, one batch of one image at the configuration's test size, and how the model
            runs on it. No data set and no folder of a run is looked at.

        Raises:
            UserError: the task has no sketch; one that is built in has.
            ConfigError: the configuration names no test size.
        """
        raise UserError(
            f"task {type(self).__name__} has no sketch; "
            "its operations are counted on a run that was trained"
        )

    def check_data(self, config: Path, overrides: Sequence[str]) -> list[SplitCheck]:
        """Look through the data of a configuration file, before anything is trained on them.

        Args:
            config: the configuration file.
            overrides: as in `resolve`.

        Returns:
            What was found in each split. Data that are not there are an error of their split.

        Raises:
            UserError: the task has no check of its data.
            ConfigError: the file cannot be read, or an override names no key of it.
        """
        raise UserError(f"task {type(self).__name__} has no check of its data")


class ConfigError(UserError, ValueError):
    """A configuration, suite or override is wrong; the message says what was meant."""


class MissingDataError(UserError, FileNotFoundError):
    """A data set, or part of it, is not there; the message says where it comes from."""

"""The task plug-in: what a task has to provide, and what it is given and returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from spikebench.datacheck import SplitCheck
from spikebench.errors import UserError
from spikebench.files import data_root
from spikebench.registry import TASKS
from spikebench.results import BackboneInfo, DatasetInfo


class MetricSpec(NamedTuple):
    """How a metric is named, measured and shown.

    Attributes:
        title: heading of its column, such as "box AP"; its own name if empty.
        unit: "fraction" (0 to 1, shown in percent), or a unit such as "ms"; may be empty.
        higher_is_better: which way is up.
        proportion: whether it is the share of test images that passed, so that an interval follows
            from the number of images alone; AP, IoU and calibration errors are not.
        decimals: how many are shown of a percentage.
        detail: whether it is shown in files only, as a terminal has no room for it.
    """

    title: str = ""
    unit: str = "fraction"
    higher_is_better: bool = True
    proportion: bool = False
    decimals: int = 2
    detail: bool = False


@dataclass(frozen=True)
class Run:
    """One run: one (backbone, task, data set, protocol, seed), and where its files go.

    Attributes:
        key: hash of `config` and of everything else that decides the result, such as
            "3f9a01c77b52".
        suite: name of the suite.
        backbone: registered name.
        task: registered name.
        protocol: name of the configuration file, without folder and suffix.
        seed: seeds everything random.
        config: the resolved configuration, plain data.
        folder: holds checkpoints, logs and the record of this run; nothing else writes there.
        tensorboard: folder of this run's TensorBoard events.
        limit: use only this many images of each split; None uses all.
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
    """The metrics of one checkpoint on one split.

    Attributes:
        metrics: values at full precision, by name, such as `{"top1": 0.9859}`. Those that are no
            metric of the task (losses, timings) are dropped.
        dataset: which data set and split they are of, and how many images that has.
        intervals: low and high end of the 95 % interval of each metric that has one.
        per_class: by metric, a value per class name, such as `{"miou": {"road": 0.81}}`.
        by_time_steps: by metric, its values after 1, 2, ... T time steps of one pass.
    """

    metrics: dict[str, float]
    dataset: DatasetInfo
    intervals: Mapping[str, tuple[float, float]] = MappingProxyType({})
    per_class: Mapping[str, dict[str, float]] = MappingProxyType({})
    by_time_steps: Mapping[str, list[float]] = MappingProxyType({})


class Probe(NamedTuple):
    """A model and batches to count its operations on.

    Attributes:
        model: in eval mode, on its device.
        batches: what `forward` takes, on the model's device. They can be iterated again. If test
            images are augmented, each image is in as many batches as it has views.
        forward: `forward(model, batch)` runs the model on one batch.
        backbone: name, arguments, T and parameters of the backbone in `model`.
        views: how many views of each image are scored.
        images: `images(batch)` gives the B images of a batch: a tensor `(B, ...)`, or a list of
            B tensors; None if a batch is such a tensor itself.

    Example:
        A batch that is a dictionary: `Probe(..., images=itemgetter("inputs"))`.
    """

    model: Any
    batches: Iterable[Any]
    forward: Callable[[Any, Any], Any]
    backbone: BackboneInfo
    views: int = 1
    images: Callable[[Any], Any] | None = None


ConfigPath = tuple[str | int, ...]
"""Where a value stands in a configuration: keys and indices, outermost first."""


class Task(ABC):
    """A way to train and score a backbone; found through the entry-point group spikebench.tasks.

    A task is made without arguments and keeps nothing between calls: all it needs is in the run.
    The module that defines it is imported by reports, too, so it imports its training framework
    inside methods.

    Attributes:
        title: heading of its tables, such as "Detection"; its registered name if empty.
        metrics: the metrics that `evaluate` returns, the most important first. Adding one takes
            two edits: compute it, and name it here.
        distributed: whether several processes can do one run together.
        not_protocol: keys of the configuration, at any depth, that say where and how fast a run
            computes and not what: devices, folders, loader workers. They do not enter run keys.
        packages: installed packages whose versions decide its results; `"a|b"` if either will do.
        modules: what training and scoring import; `spikebench doctor` tries them.

    Example:
        class DepthTask(Task):
            title = "Depth"
            metrics = {"rmse": MetricSpec("RMSE", unit="m", higher_is_better=False)}
    """

    title: str = ""
    metrics: Mapping[str, MetricSpec]
    distributed: bool = False
    not_protocol: frozenset[str] = frozenset()
    packages: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()

    @abstractmethod
    def resolve(
        self,
        config: Path,
        backbone: str | None,
        arguments: Mapping[str, Any],
        overrides: Sequence[str],
    ) -> dict[str, Any]:
        """Read a configuration file and put backbone and overrides in.

        Args:
            config: the configuration file.
            backbone: registered name; None leaves the one that the file names.
            arguments: arguments of the backbone, from the suite.
            overrides: `key.path=value`; the key must be in the configuration.

        Returns:
            Plain data: dictionaries, lists, tuples, numbers, strings.

        Raises:
            ConfigError: the file cannot be read, or an override names no key of it.
        """

    def for_scoring(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration without what only training reads, such as a teacher's weights."""
        return dict(config)

    def initial_weights(self, config: Mapping[str, Any]) -> dict[ConfigPath, str]:
        """Files of weights that a run starts from; they enter its key by what they hold.

        Args:
            config: what `resolve` returned.

        Returns:
            File names by where the configuration holds them, such as
            `{("model", "backbone", "weights"): "15m.safetensors"}`. Weights that a framework
            downloads by a URL are no files.
        """
        return {}

    def with_initial_weights(self, config: Mapping[str, Any], weights: Path) -> dict[str, Any]:
        """A copy of the configuration that names `weights` as the file that a run starts from.

        `initial_weights` of the copy has that file.

        Raises:
            UserError: the task scores only what it trained; the built-in ones take any weights.
        """
        raise UserError(f"task {type(self).__name__} takes no weights; it scores what it trained")

    def with_image_size(self, config: Mapping[str, Any], size: int) -> dict[str, Any]:
        """A copy of the configuration that scores images of `size` by `size` pixels.

        Raises:
            UserError: the task or the configuration has no single image size.
        """
        raise UserError(f"task {type(self).__name__} scores at no other image size")

    def backbone_of(self, config: Mapping[str, Any]) -> str:
        """The name of the backbone that a resolved configuration builds.

        Raises:
            ConfigError: it names none.
        """
        raise ConfigError(
            f"task {type(self).__name__} reads no backbone off a configuration; "
            "name one with --backbone"
        )

    def checkpoints(self, folder: Path) -> list[Path]:
        """The checkpoints in the folder of a run that training could resume from."""
        return []

    @abstractmethod
    def train(self, run: Run) -> Path:
        """Train, resuming from the last whole checkpoint in `run.folder`.

        Returns:
            The final checkpoint.
        """

    @abstractmethod
    def evaluate(self, run: Run, checkpoint: Path) -> Evaluation:
        """Score a checkpoint on the test split."""

    @abstractmethod
    def probe(self, run: Run, checkpoint: Path) -> Probe:
        """The trained model and batches of real test images, to count operations on."""

    def sketch(self, config: Mapping[str, Any]) -> Probe:
        """The untrained model and one random image; needs neither data nor weights.

        It gives what follows from the architecture and the image size: parameters and dense
        operations, but no rates and no accuracies.

        Args:
            config: what `resolve` returned.

        Returns:
            The model, one batch of one image at the configuration's test size, and how the model
            runs on it. No data set and no folder of a run is read.

        Raises:
            UserError: the task has no sketch. The built-in ones have.
            ConfigError: the configuration names no test size.
        """
        raise UserError(
            f"task {type(self).__name__} has no sketch; "
            "its operations are counted on a run that was trained"
        )

    def check_data(
        self, config: Path, overrides: Sequence[str], data_root: Path
    ) -> list[SplitCheck]:
        """Check the data of a configuration file, before anything is trained on them.

        Args:
            config: the configuration file.
            overrides: as in `resolve`.
            data_root: the folder that holds one folder per data set.

        Returns:
            What was found in each split. Missing data are an error of their split.

        Raises:
            UserError: the task has no check of its data.
            ConfigError: the file cannot be read, or an override names no key of it.
        """
        raise UserError(f"task {type(self).__name__} has no check of its data")


def packages_of(tasks: Iterable[str]) -> list[str]:
    """Return `Task.packages` of the tasks of these names; a task that cannot be had has none."""
    packages: list[str] = []
    for name in tasks:
        with suppress(UserError):
            packages += TASKS.get(name)().packages
    return packages


class ConfigError(UserError, ValueError):
    """A configuration, suite or override is wrong; the message says what was expected."""


class MissingDataError(UserError, FileNotFoundError):
    """A data set, or part of it, is missing; the message says where to get it."""

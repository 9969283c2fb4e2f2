"""Tables of reported figures: YAML files with their sources, and how each row can be built here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, model_validator

from spikebench.errors import UserError
from spikebench.papers.record import FigureSpec, Reported, ReportedRow
from spikebench.registry import unknown_name
from spikebench.results import Strict
from spikebench.shipped import shipped_folder
from spikebench.strict_yaml import StrictLoader

SUFFIXES = (".yaml", ".yml")
_TABLES = "leaderboards/papers"
_NUMBERS = ("tag:yaml.org,2002:float", "tag:yaml.org,2002:int")


class TableError(UserError, ValueError):
    """A table of reported figures cannot be read; the message names the file and the place."""


class _Loader(StrictLoader):
    """Reads figures as they are written: as a float, 78.80 would lose a digit."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        for key, figures in node.value:
            if key.value in ("seen", "unverified") and isinstance(figures, yaml.MappingNode):
                for _, figure in figures.value:
                    if figure.tag in _NUMBERS:
                        figure.tag = "tag:yaml.org,2002:str"
        return node


class _Keys(Strict):
    """Base of what is read from tables: an unknown key is answered with what was meant."""

    @model_validator(mode="before")
    @classmethod
    def _known(cls, data: Any) -> Any:
        for key in data if isinstance(data, Mapping) else ():
            if key not in cls.model_fields:
                raise unknown_name("key", str(key), cls.model_fields)
        return data


class TableFigure(FigureSpec, _Keys):
    """A column of a table.

    Attributes:
        metric: the metric of a task that measures it; a metric in fractions becomes percent where
            the unit is "%".
    """

    metric: str | None = None

    @property
    def spec(self) -> FigureSpec:
        """The column as records have it."""
        return FigureSpec(**self.model_dump(exclude={"metric"}))


class _Build(_Keys):
    @property
    def fused(self) -> bool:
        """Whether the row is about a fused form of a model, which has no other forms."""
        return False


class DeployArguments(_Keys):
    """The arguments of `spikebench.inference.deploy.deploy`, apart from the model."""

    fold_norms: bool = True
    fuse: bool | list[str] = False


class ClassifierBuild(_Build):
    """A registered backbone with a classifier.

    Attributes:
        backbone: registered name.
        arguments: of the backbone, without `time_steps`.
        num_classes: None builds the backbone alone.
        distillation: whether there is a second head that learns from a teacher.
        deploy: makes the form that the row is about; None measures the model as coded, and its
            deploy forms beside it.
    """

    backbone: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    num_classes: int | None = Field(ge=1)
    distillation: bool = False
    deploy: DeployArguments | None = None

    @property
    def fused(self) -> bool:
        return self.deploy is not None


class TimmBuild(_Build):
    """An ANN of timm, whose operations are all multiply-accumulates.

    Attributes:
        timm: its name there.
        arguments: of its function.
    """

    timm: str
    arguments: dict[str, Any] = Field(default_factory=dict)


class TaskBuild(_Build):
    """The model of a task's configuration.

    Attributes:
        task: registered name.
        config: the configuration file, relative to the table's file.
        backbone: registered name.
        arguments: of the backbone.
        overrides: `key.path=value`; `{time_steps}` and `{image_size}` stand for the row's.
    """

    task: str
    config: Path
    backbone: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    overrides: list[str] = Field(default_factory=list)


Build = ClassifierBuild | TimmBuild | TaskBuild

_BUILDS: dict[str, type[Build]] = {
    "timm": TimmBuild,
    "task": TaskBuild,
    "backbone": ClassifierBuild,
}


class Score(_Keys):
    """How classifiers of a table are scored.

    Attributes:
        task: registered name.
        config: the configuration file, relative to the table's file.
        overrides: as in `TaskBuild`.
    """

    task: str
    config: Path
    overrides: list[str] = Field(default_factory=list)


class TableRow(_Keys):
    """A row of a table.

    Attributes:
        id: names the row within its table; the other attributes up to `details` are those of
            `ReportedRow`.
        seen: figures that were read in the source, with the digits that it prints.
        unverified: figures from memory.
        image_size: pixels each side, where it is not the table's.
        build: how it is built here; None where it cannot be.
    """

    id: str = Field(pattern=r"^[^\s=]+$")
    model: str
    time_steps: int | str | None = None
    spiking: bool = True
    note: str | None = None
    source: str | None = None
    details: dict[str, str] = Field(default_factory=dict)
    seen: dict[str, Decimal] = Field(default_factory=dict)
    unverified: dict[str, Decimal] = Field(default_factory=dict)
    image_size: int | None = Field(default=None, ge=1)
    build: Build | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_kind_of_build(cls, data: Any) -> Any:
        build = data.get("build") if isinstance(data, Mapping) else None
        if not isinstance(build, Mapping):
            return data
        kind = next((kind for key, kind in _BUILDS.items() if key in build), None)
        if kind is None:
            raise ValueError(f"build has none of {', '.join(_BUILDS)}, one of which says what kind")
        return {**data, "build": kind.model_validate(build)}

    @model_validator(mode="after")
    def _consistent(self) -> TableRow:
        both = self.seen.keys() & self.unverified.keys()
        if both:
            raise ValueError(f"{', '.join(sorted(both))} both seen and unverified")
        if self.build is None:
            return self
        if isinstance(self.build, TimmBuild) == self.spiking:
            raise ValueError("models of timm need spiking: false, and only they do")
        if self.spiking and not (isinstance(self.time_steps, int) and self.time_steps >= 1):
            raise ValueError(f"time_steps={self.time_steps!r}; a build needs a whole number")
        return self


class PaperTable(_Keys):
    """A published table.

    Attributes:
        path: its file; the file's name is the table's.
        title: what a reader sees.
        source: of rows that name none.
        figures: the columns, in their order.
        image_size: pixels each side of what classifiers see.
        data: folder of the test images, below the data root.
        score: how classifiers are scored, with weights and data.
        rows: in the order of the table.
    """

    path: Path
    title: str
    source: str | None = None
    figures: dict[str, TableFigure] = Field(min_length=1)
    image_size: int = Field(default=224, ge=1)
    data: str | None = None
    score: Score | None = None
    rows: list[TableRow] = Field(min_length=1)

    @property
    def name(self) -> str:
        """Its name, as the command takes it."""
        return self.path.stem

    @model_validator(mode="after")
    def _consistent(self) -> PaperTable:
        twice = [name for name, count in Counter(row.id for row in self.rows).items() if count > 1]
        if twice:
            raise ValueError(f"two rows have the id {twice[0]!r}")
        for row in self.rows:
            for figure in (*row.seen, *row.unverified):
                if figure not in self.figures:
                    raise unknown_name(f"figure of row {row.id}", figure, self.figures)
        return self

    def reported(self, row: TableRow) -> ReportedRow:
        """A row as records have it, its figures in the order of the columns."""
        figures = {
            name: Reported(value=float(found[name]), text=str(found[name]), seen=found is row.seen)
            for name in self.figures
            for found in (row.seen, row.unverified)
            if name in found
        }
        return ReportedRow(
            id=row.id,
            model=row.model,
            time_steps=row.time_steps,
            spiking=row.spiking,
            note=row.note,
            source=row.source or self.source,
            details=row.details,
            figures=figures,
        )

    def select(self, names: list[str]) -> list[TableRow]:
        """The rows of these ids, or of these models; all of them where no name is given.

        Raises:
            UnknownNameError: no row has that id or model; near ones are suggested.
        """
        known = {name for row in self.rows for name in (row.id, row.model)}
        for name in names:
            if name not in known:
                raise unknown_name(f"row of {self.name}", name, known)
        return [row for row in self.rows if not names or {row.id, row.model} & set(names)]


def table_names() -> list[str]:
    """The names of the tables that come with this project."""
    return sorted(path.stem for path in shipped_folder(_TABLES).glob("*.yaml"))


def load_table(name: str) -> PaperTable:
    """Read a table of reported figures.

    Args:
        name: one of `table_names()`, or the path of a YAML file.

    Raises:
        UnknownNameError: there is no such table; near ones are suggested.
        TableError: the file is missing, no YAML, or no table; the message says where.
    """
    path = Path(name)
    if path.suffix not in SUFFIXES:
        if name not in table_names():
            raise unknown_name("table", name, table_names())
        path = shipped_folder(_TABLES) / f"{name}.yaml"
    if not path.is_file():
        raise TableError(f"no such table: {path}")
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TableError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise TableError(f"{path} holds a {type(data).__name__}; expected the keys of a table")
    try:
        return PaperTable.model_validate({**data, "path": path})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise TableError(f"{path}: {where + ': ' if where else ''}{message}") from None
    except LookupError as error:  # an unknown name: pydantic lets it through
        raise TableError(f"{path}: {error}") from None

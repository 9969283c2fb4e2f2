"""Which records make one row: the seeds of one experiment, without failures and repeats."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from spikebench.results import Record
from spikebench.speed.record import SpeedRecord

AnyRecord = TypeVar("AnyRecord", Record, SpeedRecord)


class Source(NamedTuple, Generic[AnyRecord]):
    """A record and the file that it was read from."""

    path: Path
    record: AnyRecord


@dataclass(frozen=True)
class Group:
    """The seeds of one experiment; all but the seed is the same in its records.

    Attributes:
        sources: one per seed, by seed.
        label: the backbone's name, with what tells it from another group that reads the same.
    """

    sources: tuple[Source[Record], ...]
    label: str

    @property
    def first(self) -> Record:
        """A record to read what all of them share from."""
        return self.sources[0].record


@dataclass(frozen=True)
class Selection:
    """Records sorted into what is shown as numbers and what is not.

    Attributes:
        groups: finished runs, seeds of one experiment together.
        failures: runs that ended in an error.
        superseded: older records of a run that another record holds too.
    """

    groups: tuple[Group, ...]
    failures: tuple[Source[Record], ...]
    superseded: tuple[Source[Record], ...]


def select(records: Iterable[tuple[Path, Record]]) -> Selection:
    """Drop repeats, set failures aside and gather the seeds of each experiment.

    Of several records with one key the newest finished one counts. Where two records of a group
    have the same seed, they differ in something else than the seed: each then keeps its own row.
    """
    kept, superseded = _newest(Source(*pair) for pair in records)
    finished = [source for source in kept if source.record.status == "finished"]
    failures = [source for source in kept if source.record.status == "failed"]
    members: dict[str, list[Source]] = defaultdict(list)
    for source in finished:
        members[_experiment(source.record)].append(source)
    groups: list[tuple[Source[Record], ...]] = []
    for sources in members.values():
        sources.sort(key=lambda source: source.record.seed)
        if len({source.record.seed for source in sources}) == len(sources):
            groups.append(tuple(sources))
        else:
            groups.extend((source,) for source in sources)
    return Selection(
        groups=tuple(sorted(_labelled(groups), key=_order)),
        failures=tuple(sorted(failures, key=_order_of_failure)),
        superseded=tuple(superseded),
    )


def _newest(sources: Iterable[Source]) -> tuple[list[Source], list[Source]]:
    repeats: dict[tuple[str, bool], list[Source]] = defaultdict(list)
    seen: set[Path] = set()
    for source in sources:
        if (resolved := source.path.resolve()) not in seen:
            seen.add(resolved)
            repeats[source.record.key, source.record.partial].append(source)
    kept, superseded = [], []
    for group in repeats.values():
        group.sort(key=lambda source: (source.record.status == "finished", source.record.started))
        kept.append(group.pop())
        superseded.extend(group)
    return kept, superseded


def _experiment(record: Record) -> str:
    """All that has to be the same for two records to be seeds of one experiment."""
    return _canonical(
        [
            record.task,
            record.dataset and record.dataset.model_dump(),
            record.protocol,
            record.backbone_name,
            record.backbone and record.backbone.model_dump(),
            record.parameters,
            record.views,
            record.partial,
        ]
    )


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _labelled(groups: list[tuple[Source[Record], ...]]) -> list[Group]:
    twins: dict[tuple, list[tuple[Source[Record], ...]]] = defaultdict(list)
    for sources in groups:
        twins[_visible(sources[0].record)].append(sources)
    labelled = []
    for alike in twins.values():
        suffixes = _suffixes([sources[0].record for sources in alike])
        for sources, suffix in zip(alike, suffixes, strict=True):
            labelled.append(Group(sources, sources[0].record.backbone_name + suffix))
    return labelled


def _visible(record: Record) -> tuple:
    dataset, backbone = record.dataset, record.backbone
    return (
        record.task,
        dataset and (dataset.name, dataset.split, dataset.test_samples),
        record.protocol,
        record.views,
        record.backbone_name,
        backbone and backbone.time_steps,
        record.partial,
    )


def _suffixes(records: list[Record]) -> list[str]:
    """What tells records apart that would read the same: differing arguments, or the key."""
    if len(records) == 1:
        return [""]
    arguments = [record.backbone.arguments if record.backbone else {} for record in records]
    names = sorted({name for given in arguments for name in given})
    differing = [
        name for name in names if len({_canonical(given.get(name)) for given in arguments}) > 1
    ]
    suffixes = [
        "".join(f" {name}={given[name]}" for name in differing if name in given)
        for given in arguments
    ]
    if len(set(suffixes)) == len(suffixes):
        return suffixes
    return [f"{suffix} #{record.key[:8]}" for suffix, record in zip(suffixes, records, strict=True)]


def _order(group: Group) -> tuple:
    record = group.first
    dataset, backbone = record.dataset, record.backbone
    return (
        record.task,
        (dataset.name, dataset.split) if dataset else ("", ""),
        record.protocol,
        record.views,
        group.label,
        backbone.time_steps if backbone else 0,
        record.partial,
        record.key,
    )


def _order_of_failure(source: Source) -> tuple:
    record = source.record
    return (record.task, record.protocol, record.backbone_name, record.seed, record.key)

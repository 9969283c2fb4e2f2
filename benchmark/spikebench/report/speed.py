"""The table of speed records: one row per contender, its figures worked out from raw times."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import NamedTuple

from spikebench.report.columns import Cell, Column, RatioRange, SeedValues
from spikebench.report.grouping import Source
from spikebench.report.tables import Row, Table
from spikebench.speed import figures
from spikebench.speed.record import SpeedRecord, Timing

FLOOR_NOTE = (
    "Times the floor: its time over that of the model's dense MACs at the rate of a matrix product "
    "in the same precision, measured in the same rounds."
)
SPREAD_NOTE = "Ratios: median over the rounds, in brackets the lowest and the highest."


class Entry(NamedTuple):
    """One contender of a record, and what its ratios are relative to."""

    record: SpeedRecord
    timing: Timing
    baseline: Timing | None


def newest(pairs: Iterable[tuple[Path, SpeedRecord]]) -> tuple[list[Source], list[Source]]:
    """The newest record of each measurement, and the older ones."""
    by_key: dict[str, dict[Path, Source]] = {}
    for path, record in pairs:
        by_key.setdefault(record.key, {})[path.resolve()] = Source(path, record)
    kept, superseded = [], []
    for sources in by_key.values():
        *older, last = sorted(sources.values(), key=lambda source: source.record.started)
        kept.append(last)
        superseded.extend(older)
    kept.sort(key=lambda source: (source.record.device, source.record.backbone_name))
    return kept, superseded


def speed_table(pairs: Iterable[tuple[Path, SpeedRecord]]) -> Table:
    """The table of all contenders that did not fail; its notes say what the ratios are to."""
    kept, superseded = newest(pairs)
    rows, notes = [], []
    for source in kept:
        for entry in _entries(source.record):
            rows.append(Row({column.key: column.of(entry) for column in COLUMNS}, (source,)))
        about = f"{source.record.backbone_name}, {source.record.device}: "
        notes += [about + note if len(kept) > 1 else note for note in _notes(source.record)]
    notes += [f"left out, as a newer record exists: {source.path.name}" for source in superseded]
    if rows:
        notes = [SPREAD_NOTE, FLOOR_NOTE, *notes]
    return Table("speed", "Speed", COLUMNS, tuple(rows), notes=tuple(notes))


def work_tables(path: Path, record: SpeedRecord) -> list[Table]:
    """One narrow table for each work of one record, without what its rows share.

    The notes stand below the last one. Where all contenders failed there is no table.
    """
    source = Source(path, record)
    settings = record.settings
    images = f"{settings.image_size}x{settings.image_size} pixels"
    maps = "maps of " + "x".join(map(str, record.layer_shape))
    tables = []
    for work, found in groupby(_entries(record), _work):
        entries = list(found)
        columns = [one for one in COLUMNS if one.is_figure or one.key == "contender"]
        columns = [one for one in columns if any(map(one.of, entries))]
        rows = [
            Row({column.key: column.of(entry) for column in columns}, (source,))
            for entry in entries
        ]
        size = images if entries[0].timing.contender.subject == "model" else maps
        title = (
            f"{record.backbone_name}: {work} (T = {settings.time_steps}, "
            f"batch {settings.batch_size}, {size}, {record.device})"
        )
        tables.append(Table(f"speed-{work}", title, tuple(columns), tuple(rows)))
    if tables:
        notes = (SPREAD_NOTE, FLOOR_NOTE, *_notes(record))
        tables[-1] = replace(tables[-1], notes=notes)
    return tables


def _entries(record: SpeedRecord) -> list[Entry]:
    """The contenders with figures, those of the same work together; matrix products apart."""
    shown = [
        timing
        for timing in record.timings
        if timing.error is None and timing.contender.subject != "matmul"
    ]
    return [
        Entry(record, timing, figures.baseline(record, timing.contender.work)) for timing in shown
    ]


def _notes(record: SpeedRecord) -> list[str]:
    settings = record.settings
    notes = []
    for work in dict.fromkeys(entry.timing.contender.work for entry in _entries(record)):
        found = figures.baseline(record, work)
        if found is not None:
            notes.append(f"{work}: speed and memory are relative to {found.contender.label}")
    for precision in ("float32", "bfloat16"):
        seconds = figures.floor(record, precision)
        if seconds is not None:
            low, mid, high = min(seconds), median(seconds), max(seconds)
            macs = record.dense_macs * settings.time_steps * settings.batch_size / 1e9
            notes.append(
                f"floor in {precision}: {mid:.4g} s ({low:.4g}–{high:.4g}), {macs:.4g} GMACs at "
                f"the {2 * macs / mid:.4g} GFLOP/s of a {record.matmul_size} matrix product"
            )
    if record.firing_rate is not None:
        notes.append(f"mean firing rate: {record.firing_rate:.4f}")
    notes.append(f"memory: {record.memory}; training step: {record.optimizer}")
    notes += [
        f"failed: {timing.contender.work}, {timing.contender.label}: {timing.error}"
        for timing in record.failures
    ]
    return notes


def _setting(value: Callable[[SpeedRecord], int]) -> Callable[[Entry], Cell]:
    return lambda entry: SeedValues((value(entry.record),))


def _figure(value: Callable[[Entry], float | None]) -> Callable[[Entry], Cell]:
    def cell(entry: Entry) -> Cell:
        found = value(entry)
        return None if found is None else SeedValues((found,))

    return cell


def _of_model(value: Callable[[Entry], float]) -> Callable[[Entry], Cell]:
    """A figure that a layer alone does not have."""
    return _figure(lambda e: value(e) if e.timing.contender.subject == "model" else None)


def _memory_share(entry: Entry) -> float | None:
    if entry.baseline is None:
        return None
    return figures.peak_memory(entry.timing) / figures.peak_memory(entry.baseline)


def _speedup(entry: Entry) -> Cell:
    if entry.baseline is None:
        return None
    return RatioRange(figures.speedups(entry.timing, entry.baseline))


def _over_floor(entry: Entry) -> Cell:
    ratios = figures.over_floor(entry.record, entry.timing)
    return None if ratios is None else RatioRange(ratios)


def _work(entry: Entry) -> str:
    return entry.timing.contender.work


COLUMNS = (
    Column("backbone", "backbone", lambda entry: entry.record.backbone_name, "text"),
    Column("work", "measured", _work, "text"),
    Column("contender", "contender", lambda entry: entry.timing.contender.label, "text"),
    Column("speedup", "times as fast", _speedup, "spread", decimals=2, higher_is_better=True),
    Column(
        "images_per_second",
        "images/s",
        _of_model(lambda entry: figures.images_per_second(entry.record, entry.timing)),
        "constant",
        higher_is_better=True,
    ),
    Column(
        "latency_p50_s",
        "p50 (ms)",
        _figure(lambda entry: figures.latency(entry.timing, 0.5)),
        "constant",
        scale=1e3,
        higher_is_better=False,
    ),
    Column(
        "latency_p95_s",
        "p95 (ms)",
        _figure(lambda entry: figures.latency(entry.timing, 0.95)),
        "constant",
        scale=1e3,
        higher_is_better=False,
    ),
    Column(
        "over_floor", "times the floor", _over_floor, "spread", decimals=2, higher_is_better=False
    ),
    Column(
        "peak_memory_bytes",
        "peak (MiB)",
        _figure(lambda entry: figures.peak_memory(entry.timing)),
        "constant",
        scale=2**-20,
        decimals=0,
        higher_is_better=False,
    ),
    Column(
        "working_memory_bytes",
        "above model (MiB)",
        _figure(lambda entry: figures.working_memory(entry.timing)),
        "constant",
        scale=2**-20,
        decimals=0,
        higher_is_better=False,
    ),
    Column(
        "memory_share",
        "memory (%)",
        _figure(_memory_share),
        "constant",
        scale=100,
        decimals=1,
        higher_is_better=False,
    ),
    # Nine decimals: one spike in a thousand million shows.
    Column(
        "spikes_equal",
        "spikes equal",
        _figure(lambda entry: entry.timing.spikes_equal),
        "constant",
        decimals=9,
        higher_is_better=True,
    ),
    Column("time_steps", "T", _setting(lambda r: r.settings.time_steps), "setting", decimals=0),
    Column("batch_size", "batch", _setting(lambda r: r.settings.batch_size), "setting", decimals=0),
    Column(
        "image_size",
        "pixels",
        _of_model(lambda entry: entry.record.settings.image_size),
        "setting",
        decimals=0,
    ),
    Column("device", "device", lambda entry: entry.record.device, "text"),
)

"""Results: the record of a run, and the store of records."""

from spikebench.results.record import (
    SCHEMA_VERSION,
    AnyRecord,
    BackboneInfo,
    DatasetInfo,
    Metric,
    Record,
    RecordError,
    Strict,
    read_as,
    read_record,
)
from spikebench.results.store import (
    RECORD_NAME,
    REPRODUCTIONS,
    SPEED_RECORDS,
    MissingResultsError,
    ResultStore,
    find_records,
)

__all__ = [
    "RECORD_NAME",
    "REPRODUCTIONS",
    "SCHEMA_VERSION",
    "SPEED_RECORDS",
    "AnyRecord",
    "BackboneInfo",
    "DatasetInfo",
    "Metric",
    "MissingResultsError",
    "Record",
    "RecordError",
    "ResultStore",
    "Strict",
    "find_records",
    "read_as",
    "read_record",
]

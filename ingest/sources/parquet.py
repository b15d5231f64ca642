"""Parquet files as JSON objects, row by row.

Decimals keep their digits; times become ISO 8601, binary values base64.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from bridge.errors import UsageError
from bridge.records import SourcePosition
from ingest.sources.file_access import pyarrow_missing
from ingest.sources.json_bytes import Entry, sized
from ingest.sources.source import SAMPLE_BYTES, Unreadable

try:
    import pyarrow as pa
    from pyarrow import compute
    from pyarrow import parquet as pq
except ImportError as missing:
    raise pyarrow_missing() from missing

_BATCH_ROWS = 500

_encode = msgspec.json.Encoder(decimal_format="number").encode


def count_row_groups(name: str, file: Any) -> int:
    """How many groups of rows a file has; `file` is open for reading at any place.

    Raises:
        UsageError: the file is no Parquet file, or is damaged.
    """
    try:
        return int(pq.ParquetFile(file).num_row_groups)
    except (OSError, ValueError) as error:
        raise UsageError(f"source {name} cannot be read as Parquet: {error}") from error


def parquet_entries(
    name: str, file: Any, max_bytes: int, *, row_group: int | None = None
) -> Iterator[Entry | Unreadable]:
    """The rows of a file, or of one group of them, numbered from the file's first, which is 1; `file` is open for
    reading at any place.

    Raises:
        UsageError: the file is no Parquet file, is damaged, or holds a type that JSON cannot express.
    """
    row = 0
    try:
        table = pq.ParquetFile(file)
        if row_group is not None:
            row = sum(table.metadata.row_group(before).num_rows for before in range(row_group))
        groups = None if row_group is None else [row_group]
        for batch in table.iter_batches(batch_size=_BATCH_ROWS, row_groups=groups):
            for values in _readable(batch).to_pylist():
                row += 1
                yield _entry(SourcePosition(name, row), values, max_bytes)
    except (OSError, ValueError, NotImplementedError) as error:
        raise UsageError(
            f"source {name} cannot be read on after row {row} as Parquet ({error}): what was read before is written"
        ) from error


def _entry(position: SourcePosition, values: dict[str, Any], max_bytes: int) -> Entry | Unreadable:
    try:
        body = _encode(values)
    except (TypeError, ValueError) as error:
        return Unreadable(position, "invalid_row", f"the row is no JSON: {error}", repr(values)[:SAMPLE_BYTES].encode())
    return sized(Entry(position, body), max_bytes)


def _readable(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with its times in nanoseconds, which Python's own cannot hold, as texts."""
    for at, field in enumerate(batch.schema):
        if pa.types.is_timestamp(field.type) and field.type.unit == "ns":
            zone = "Z" if field.type.tz else ""
            texts = compute.strftime(batch.column(at).cast(pa.timestamp("ns")), format=f"%Y-%m-%dT%H:%M:%S{zone}")
            batch = batch.set_column(at, field.name, texts)
    return batch

"""Rows of Parquet keep their digits, and damage is named."""

import json
from decimal import Decimal
from pathlib import Path

import pytest

from bridge.errors import UsageError
from tests.ingest.sources.reading import bodies, outcome, read, written


def test_rows_of_parquet_keep_their_digits(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="needs the parquet extra")
    from pyarrow import parquet

    table = pa.table(
        {
            "_id": ["1", "2"],
            "price": pa.array([Decimal("12.50"), None], pa.decimal128(10, 2)),
            "count": pa.array([2**60 + 1, 1], pa.int64()),
            "at": pa.array([1_600_000_000_000_000_001, 0], pa.timestamp("ns", "UTC")),
            "tags": [["a", "b"], []],
            "odd": [0.1, float("nan")],
        }
    )
    parquet.write_table(table, tmp_path / "corpus.parquet")
    items = read(tmp_path / "corpus.parquet")
    assert json.loads(bodies(items)[0], parse_float=str) == {
        "price": "12.50",
        "count": 2**60 + 1,
        "at": "2020-09-13T12:26:40.000000001Z",
        "tags": ["a", "b"],
        "odd": "0.1",
    }
    assert outcome(items[1]) == (2, "2")


def test_a_file_that_is_no_parquet_is_a_usage_error(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="needs the parquet extra")
    with pytest.raises(UsageError, match=r"cannot be read on after row 0 as Parquet"):
        read(written(tmp_path, "corpus.parquet", b'{"_id": "1"}\n'))

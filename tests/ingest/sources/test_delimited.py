"""Rows of CSV and TSV are documents, numbers as written; a bad row is its own problem."""

import csv
from pathlib import Path

import pytest

from bridge.errors import UsageError
from ingest.sources.documents import FieldChoice
from ingest.sources.source import Unreadable
from tests.ingest.sources.reading import LIMIT, bodies, outcome, read, written


def test_rows_are_documents_and_named_columns_are_numbers_as_written(tmp_path: Path) -> None:
    content = '\ufeffsku,title,price,stock\r\n7,"A ""wing"",\nand more",12.50,\r\n\r\n8,Flügel,1e3,0\r\n'.encode()
    fields = FieldChoice(["title"], id_field="sku", numbers=["price", "stock"])
    items = read(written(tmp_path, "corpus.csv", content), fields)
    assert [outcome(item) for item in items] == [(2, "7"), (5, "8")]
    assert bodies(items) == [
        b'{"sku":"7","title":"A \\"wing\\",\\nand more","price":12.50}',
        '{"sku":"8","title":"Flügel","price":1e3,"stock":0}'.encode(),
    ]


def test_the_limit_of_the_process_is_never_lowered(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    assert before > LIMIT
    read(written(tmp_path, "corpus.csv", b"_id,text\n1,a\n"))
    assert csv.field_size_limit() == before


def test_a_tsv_is_split_at_tabs(tmp_path: Path) -> None:
    items = read(written(tmp_path, "corpus.tsv", b"_id\ttext\n1\ta, b\n"))
    assert bodies(items) == [b'{"text":"a, b"}']


def test_a_bad_row_is_its_own_problem_and_the_next_one_is_read(tmp_path: Path) -> None:
    rows = [b"1,short", b'2,"a"b,3', b"3,\xff\xfe,1", b"4,x,12,50", b"5,x,twelve", b"6,good,1"]
    fields = FieldChoice(["text"], numbers=["price"])
    items = read(written(tmp_path, "c.csv", b"\n".join([b"_id,text,price", *rows])), fields)
    assert [outcome(item) for item in items] == [*((line, "invalid_row") for line in range(2, 7)), (7, "6")]
    assert isinstance(items[1], Unreadable)
    assert items[1].raw == rows[1] + b"\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"_id,text,text\n1,a,b", "several columns the name text", id="twice"),
        pytest.param(b",_id\n0,1", "column 1 no name", id="nameless"),
        pytest.param(b"_id,text\n1,a", "has no column price; its columns: _id, text", id="no-such-number"),
        pytest.param(b'_id,price\n1,"' + b"x\n" * LIMIT, "longer than ingest.max_doc_bytes", id="quote-never-closed"),
        pytest.param(b"_id,price\n1," + b"x" * LIMIT, "line 2 is longer than", id="huge-line"),
    ],
)
def test_a_table_that_cannot_be_trusted_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read(written(tmp_path, "corpus.csv", content), FieldChoice(["text"], numbers=["price"]))

"""Rows of CSV and TSV are documents, numbers as written; a bad row is its own problem."""

import csv
import io
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import UsageError
from ingest.sources.delimited import row_entries
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


@given(
    text=st.text(st.sampled_from('a",;\r\n é'), max_size=40),
    delimiter=st.sampled_from([",", ";", "\t"]),
)
def test_rows_are_cut_as_python_cuts_them(text: str, delimiter: str) -> None:
    content = f"x{delimiter}y\n{text}"
    found = row_entries("c", io.BytesIO(content.encode()), delimiter=delimiter, numbers=[], max_bytes=1000)

    # Python's reader takes lines as they are cut here: at \n alone.
    rows = csv.reader(io.StringIO(content, newline="\n"), delimiter=delimiter, strict=True)
    next(rows)
    for item in found:
        row: list[str] = []
        is_bad = False
        while not row and not is_bad:
            try:
                row = next(rows)
            except csv.Error:
                is_bad = True
        is_bad = is_bad or len(row) != 2
        assert isinstance(item, Unreadable) == is_bad
        if not isinstance(item, Unreadable):
            cells = dict(zip("xy", row, strict=True))
            assert msgspec.json.decode(item.body) == {name: cell for name, cell in cells.items() if cell}
    assert not any(rows)


def test_no_limit_of_the_process_is_touched(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    long = "x" * (before + 1)
    entries = row_entries("c", io.BytesIO(f"x\n{long}".encode()), delimiter=",", numbers=[], max_bytes=before * 2)

    assert len(list(entries)) == 1
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

"""Every format gives the same thing: each entry once, as the bytes that stand there, or a named problem."""

import gzip
import io
import json
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import UsageError
from bridge.records import Document
from ingest.sources import json_array
from ingest.sources.compression import zstd
from ingest.sources.field_choice import FieldChoice, read_field_choice
from ingest.sources.files import FileDocuments, Format
from ingest.sources.json_array import elements
from ingest.sources.opening import SourceItem, Unreadable

FIELDS = FieldChoice(["title", "text"])
LIMIT = 10_000


def read(
    file: Path, fields: FieldChoice = FIELDS, *, file_format: Format = "auto", max_doc_bytes: int = LIMIT
) -> list[SourceItem]:
    return list(FileDocuments([str(file)], fields, max_doc_bytes=max_doc_bytes, file_format=file_format).items())


def outcome(item: SourceItem) -> tuple[int, str]:
    return item.position.offset, item.doc_id if isinstance(item, Document) else item.kind


def written(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def bodies(items: list[SourceItem]) -> list[bytes]:
    return [item.body for item in items if isinstance(item, Document)]


# One JSON array


def test_elements_of_an_array_are_documents_digit_by_digit(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbf [ {"_id": 1, "n": 1.10E+05, "t": "a, [b] \\" \\\\"} ,\n{"n": 12.50, "_id": "2"}\n] \n'
    items = read(written(tmp_path, "corpus.json", content))
    assert [outcome(item) for item in items] == [(1, "1"), (2, "2")]
    assert bodies(items) == [b'{"n":1.10E+05,"t":"a, [b] \\" \\\\"}', b'{"n":12.50}']


@pytest.mark.parametrize(
    ("content", "outcomes"),
    [
        pytest.param(b"[]", [], id="empty"),
        pytest.param(b"[ \n ]\n", [], id="blank"),
        pytest.param(b'[{"_id": 1}, 5, {"_id": 3}]', [(1, "1"), (2, "not_an_object"), (3, "3")], id="a-number"),
        pytest.param(b'[{"_id": 1},]', [(1, "1"), (2, "invalid_json")], id="comma-at-the-end"),
        pytest.param(b'[{"_id": 1}, {"_id": 2, "t', [(1, "1"), (2, "invalid_json")], id="cut-off"),
        pytest.param(b'[{"_id": 1}', [(1, "invalid_json")], id="never-closed"),
        pytest.param(b'[{"_id": 1}]]', [(1, "1"), (2, "invalid_json")], id="closed-twice"),
        pytest.param(b'[{"_id": 1}] x', [(1, "1"), (2, "invalid_json")], id="something-follows"),
        pytest.param(b'[{"_id": 1, "a": NaN}, {"_id": 2}]', [(1, "invalid_json"), (2, "2")], id="not-json"),
    ],
)
def test_nothing_of_an_array_is_lost(tmp_path: Path, content: bytes, outcomes: list[tuple[int, str]]) -> None:
    assert [outcome(item) for item in read(written(tmp_path, "corpus.json", content))] == outcomes


@pytest.mark.case("I16")
def test_an_element_that_is_too_long_is_passed_over(tmp_path: Path) -> None:
    content = b'[{"_id": 1, "t": "%s"}, {"_id": 2}]' % (b"x" * 3_000_000)
    assert [outcome(item) for item in read(written(tmp_path, "a.json", content))] == [
        (1, "document_too_large"),
        (2, "2"),
    ]


texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('"\\[]{},'))
json_values = st.recursive(
    st.none() | st.integers() | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=10,
)


@given(st.lists(json_values), st.booleans(), st.integers(1, 9))
def test_an_array_is_cut_where_json_says_wherever_reads_end(values: list[object], ascii_only: bool, size: int) -> None:
    content = json.dumps(values, ensure_ascii=ascii_only, indent=1 if size % 2 else None).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_array, "READ_BYTES", size)
        found = list(elements(io.BytesIO(content), LIMIT))
    assert [number for number, _ in found] == list(range(1, len(values) + 1))
    assert [json.loads(element) for _, element in found] == values


# Bodies of bulk requests, and hits


def test_a_bulk_body_is_recognised_and_its_metadata_taken(tmp_path: Path) -> None:
    content = b"""{"index": {"_index": "old", "_id": "1", "routing": "r"}}
{"title": "one", "price": 1.50}
{"create": {"_id": 2}}
{"title": "two", "_index": "a field"}
"""
    items = read(written(tmp_path, "dump.ndjson", content))
    assert [outcome(item) for item in items] == [(2, "1"), (4, "2")]
    assert bodies(items) == [b'{"title": "one", "price": 1.50}', b'{"title": "two", "_index": "a field"}']
    assert [item.routing for item in items if isinstance(item, Document)] == ["r", None]


def test_actions_that_are_no_documents_are_named(tmp_path: Path) -> None:
    content = b"""{"index": {"_id": "1"}}
{"title": "one"}
{"update": {"_id": "2"}}
{"doc": {"title": "two"}}
{"delete": {"_id": "3"}}
{"index": {"_id": "4", "pipeline": "p"}}
{"index": {"_id": "5"}}
no json
{"index": {}}
{"title": "six"}
{"index": {"_id": "7"}}
"""
    assert [outcome(item) for item in read(written(tmp_path, "dump.ndjson", content))] == [
        (2, "1"),
        (4, "not_a_document"),
        (5, "not_a_document"),
        (6, "invalid_action"),
        (8, "invalid_json"),
        (10, "invalid_id"),
        (11, "invalid_action"),
    ]


@pytest.mark.case("I19")
def test_a_document_with_a_field_named_index_is_no_bulk_body(tmp_path: Path) -> None:
    content = b'{"index": {"_id": "1", "colour": "red"}, "_id": "a"}\n{"index": {"_id": "2"}, "_id": "b"}\n'
    items = read(written(tmp_path, "corpus.jsonl", content))
    assert [outcome(item) for item in items] == [(1, "a"), (2, "b")]


def test_hits_hold_their_documents_under_source(tmp_path: Path) -> None:
    content = b'{"_index": "i", "_id": "1", "_routing": "r", "_source": {"n": 1.0e5}}\n{"_id": "2"}\n{"_id": 3\n'
    items = read(written(tmp_path, "dump.jsonl", content), file_format="hits")
    assert [outcome(item) for item in items] == [(1, "1"), (2, "not_a_hit"), (3, "invalid_json")]
    assert bodies(items) == [b'{"n": 1.0e5}']
    assert isinstance(items[0], Document)
    assert items[0].routing == "r"


# CSV and TSV


def test_rows_are_documents_and_named_columns_are_numbers_as_written(tmp_path: Path) -> None:
    content = '\ufeffsku,title,price,stock\r\n7,"A ""wing"",\nand more",12.50,\r\n\r\n8,Flügel,1e3,0\r\n'.encode()
    fields = FieldChoice(["title"], id_field="sku", numbers=["price", "stock"])
    items = read(written(tmp_path, "corpus.csv", content), fields)
    assert [outcome(item) for item in items] == [(2, "7"), (5, "8")]
    assert bodies(items) == [
        b'{"sku":"7","title":"A \\"wing\\",\\nand more","price":12.50}',
        '{"sku":"8","title":"Flügel","price":1e3,"stock":0}'.encode(),
    ]


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


# Compression


def test_zstd_is_read_as_plain_text_is_also_in_several_frames(tmp_path: Path) -> None:
    content = zstd.compress(b"_id,text\n1,a\n") + zstd.compress(b"2,b\n")
    assert [outcome(item) for item in read(written(tmp_path, "corpus.csv.zst", content))] == [(2, "1"), (3, "2")]


@pytest.mark.parametrize("compress", [gzip.compress, zstd.compress], ids=["gzip", "zstd"])
def test_a_compressed_array_that_was_cut_off_is_no_silent_end(tmp_path: Path, compress: object) -> None:
    assert callable(compress)
    whole = compress(json.dumps([{"_id": str(i), "text": f"{i * 7919}"} for i in range(20_000)]).encode())
    with pytest.raises(UsageError, match="damaged or cut off"):
        read(written(tmp_path, "corpus.json", whole[: len(whole) // 2]))


@pytest.mark.case("I17")
def test_a_zstd_bomb_is_stopped_at_the_limit(tmp_path: Path) -> None:
    file = written(tmp_path, "bomb.jsonl.zst", zstd.compress(b'{"_id": "1"}\n' + bytes(50_000_000)))
    assert file.stat().st_size < 10_000
    source = FileDocuments([str(file)], FIELDS, max_doc_bytes=1000, max_expanded_bytes=20_000_000)
    with pytest.raises(UsageError, match="grows beyond 20,000,000 bytes"):
        list(source.items())


# Fields


def test_fields_are_renamed_and_dropped_and_values_stay_as_they_were(tmp_path: Path) -> None:
    choice = written(
        tmp_path, "fields.yaml", b"id_field: sku\ntext_fields: [title]\nrename: {name: title}\ndrop: [sku, secret]\n"
    )
    content = b'{"sku": 7, "name": "Wing", "price": 1.50, "secret": {"x": 1}}\n{"sku": 8, "name": "a", "title": "b"}\n'
    first, second = read(written(tmp_path, "c.jsonl", content), read_field_choice(choice))
    assert isinstance(first, Document)
    assert (first.doc_id, first.body, first.texts) == ("7", b'{"title":"Wing","price":1.50}', {"title": "Wing"})
    assert outcome(second) == (2, "duplicate_key")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"id: sku", "unknown field `id`; known keys: text_fields, id_field", id="unknown-key"),
        pytest.param(b"drop: secret", "Expected `array`", id="wrong-shape"),
        pytest.param(b"{", "is no YAML", id="no-yaml"),
    ],
)
def test_a_field_mapping_that_says_something_else_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_field_choice(written(tmp_path, "fields.yaml", content))


# Parquet and URLs


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


def test_urls_name_files_of_any_format_and_patterns_of_names(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="needs the parquet extra")
    written(tmp_path, "b.jsonl.gz", gzip.compress(b'{"_id": "b"}'))
    written(tmp_path, "a.csv", b"_id\na\n")
    (tmp_path / "folder.csv").mkdir()
    source = FileDocuments([f"file://{tmp_path}/*.*"], FIELDS, max_doc_bytes=LIMIT)
    assert [item.doc_id for item in source.items()] == ["a", "b"]
    assert source.resumable


@pytest.mark.case("I36")
@pytest.mark.parametrize("name", ["missing.jsonl", "*.nothing", ""])
def test_a_url_that_names_no_file_is_a_usage_error(tmp_path: Path, name: str) -> None:
    pytest.importorskip("pyarrow", reason="needs the parquet extra")
    with pytest.raises(UsageError, match="names no file"):
        FileDocuments([f"file://{tmp_path}/{name}"], FIELDS, max_doc_bytes=LIMIT)

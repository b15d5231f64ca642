"""Every line of a source is a document or a named problem; none is lost, bytes stay exact."""

import gzip
import io
import json
import tracemalloc
from pathlib import Path

import pytest

from bridge.errors import UsageError
from bridge.records import Document, SourcePosition
from ingest.sources.field_choice import FieldChoice
from ingest.sources.files import FileDocuments
from ingest.sources.opening import DocumentsInMemory, SourceItem, Unreadable, document_from_json

FIELDS = FieldChoice(text_fields=["title", "text"])


def read(path: Path, *, fields: FieldChoice = FIELDS, max_doc_bytes: int = 10_000, skip: int = 0) -> list[SourceItem]:
    return list(FileDocuments([str(path)], fields, max_doc_bytes=max_doc_bytes).items(skip))


def outcome(item: SourceItem) -> tuple[int, str]:
    return item.position.offset, item.doc_id if isinstance(item, Document) else item.kind


@pytest.mark.case("I15")
def test_bom_crlf_blank_lines_and_missing_newline_are_accepted(tmp_path: Path) -> None:
    file = tmp_path / "corpus.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"_id": "1"}\r\n\r\n{"_id": "2"}\n  \n{"_id": "3"}')
    assert [outcome(item) for item in read(file)] == [(1, "1"), (3, "2"), (5, "3")]


@pytest.mark.case("I15")
def test_truncated_last_line_is_named_with_its_number(tmp_path: Path) -> None:
    file = tmp_path / "corpus.jsonl"
    file.write_bytes(b'{"_id": "1"}\n{"_id": "2", "te')
    assert [outcome(item) for item in read(file)] == [(1, "1"), (2, "invalid_json")]


@pytest.mark.case("I16")
def test_each_bad_line_is_its_own_problem_and_the_next_one_is_read(tmp_path: Path) -> None:
    file = tmp_path / "corpus.jsonl"
    bad = [b'{"_id": "a", "x": NaN}', b'{"_id": "b", "_id": "b"}', b'{"_id": "c", "x": "\\ud800"}', b'{"_id": "d\xff"}']
    file.write_bytes(b"\n".join([*bad, b'{"_id": "good", "n": 123456789012345678901234567890}']))
    *problems, good = read(file)
    assert [outcome(item)[1] for item in problems] == [
        "invalid_json",
        "duplicate_key",
        "invalid_json",
        "invalid_utf8",
    ]
    assert isinstance(good, Document)
    assert good.body == b'{"n":123456789012345678901234567890}'


@pytest.mark.case("I16")
def test_a_huge_line_is_passed_over_without_being_held(tmp_path: Path) -> None:
    file = tmp_path / "corpus.jsonl"
    with file.open("wb") as stream:
        for _ in range(50):
            stream.write(b"x" * 1_000_000)
        stream.write(b'\n{"_id": "next"}\n')
    tracemalloc.start()
    huge, following = read(file, max_doc_bytes=100_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (outcome(huge), outcome(following)) == ((1, "document_too_large"), (2, "next"))
    assert peak < 10_000_000


@pytest.mark.case("I18")
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(b'{"_id": ""}', "is empty", id="empty"),
        pytest.param(b'{"title": "x"}', "is missing", id="missing"),
        pytest.param(b'{"_id": null}', "is missing", id="null"),
        pytest.param(b'{"_id": [1]}', "neither text nor number", id="array"),
        pytest.param(b'{"_id": true}', "neither text nor number", id="boolean"),
        pytest.param(json.dumps({"_id": "é" * 257}, ensure_ascii=False).encode(), "514 bytes", id="too-long"),
    ],
)
def test_ids_that_opensearch_refuses_are_named(body: bytes, reason: str) -> None:
    item = document_from_json(body, SourcePosition("x", 1), FIELDS)
    assert isinstance(item, Unreadable)
    assert reason in item.reason


@pytest.mark.case("I19")
def test_fields_named_like_bulk_metadata_stay_in_the_document() -> None:
    body = b'{"sku": 5, "routing": "r", "version": 1, "pipeline": "p", "_source": {}, "_index": "i", "_op_type": "x"}'
    item = document_from_json(body, SourcePosition("x", 1), FieldChoice(["text"], id_field="sku"))
    assert isinstance(item, Document)
    assert (item.doc_id, item.body, item.routing) == ("5", body, None)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        pytest.param(b'{"_id": 1, "a": {"b": "deep"}}', "deep", id="object"),
        pytest.param(b'{"_id": 1, "a.b": "dotted"}', "dotted", id="dots-in-the-key"),
        pytest.param(b'{"_id": 1, "a": [{"b": "one"}, {"b": "two"}, 3]}', "one\ntwo", id="array-of-objects"),
        pytest.param(b'{"_id": 1, "a": {"b": ["one", "two"]}}', "one\ntwo", id="array-of-texts"),
        pytest.param(b'{"_id": 1, "a": {"b": 12.50}}', "12.50", id="number"),
        pytest.param(b'{"_id": 1, "a": null}', "", id="null"),
    ],
)
def test_text_is_found_where_the_mapping_would_find_it(body: bytes, text: str) -> None:
    item = document_from_json(body, SourcePosition("x", 1), FieldChoice(["a.b"]))
    assert isinstance(item, Document)
    assert item.texts == {"a.b": text}


def test_gzip_is_read_as_plain_text_is(tmp_path: Path) -> None:
    file = tmp_path / "corpus.jsonl.gz"
    file.write_bytes(gzip.compress(b'{"_id": "1"}\n{"_id": "2"}'))
    assert [outcome(item) for item in read(file)] == [(1, "1"), (2, "2")]


@pytest.mark.case("I17")
def test_a_bomb_is_read_as_a_stream_and_stopped_at_the_limit(tmp_path: Path) -> None:
    file = tmp_path / "bomb.jsonl.gz"
    with gzip.open(file, "wb") as bomb:
        bomb.write(b'{"_id": "1"}\n')
        for _ in range(64):
            bomb.write(bytes(1_000_000))
    source = FileDocuments([str(file)], FIELDS, max_doc_bytes=1000, max_expanded_bytes=20_000_000)
    items = source.items()
    assert outcome(next(items)) == (1, "1")
    tracemalloc.start()
    with pytest.raises(UsageError, match="grows beyond 20,000,000 bytes"):
        next(items)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


def test_a_gzip_that_was_cut_off_is_no_silent_end(tmp_path: Path) -> None:
    file = tmp_path / "corpus.jsonl.gz"
    whole = gzip.compress(b"".join(b'{"_id": "%d"}\n' % i for i in range(5000)))
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match="damaged or cut off"):
        read(file)


def test_skipping_counts_items_and_keeps_line_numbers(tmp_path: Path) -> None:
    file = tmp_path / "corpus.jsonl"
    file.write_bytes(b'{"_id": "1"}\n\nno json\n{"_id": "4"}\n')
    assert [outcome(item) for item in read(file, skip=2)] == [(4, "4")]


def test_a_glob_reads_its_files_by_name(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl"):
        (tmp_path / name).write_text(f'{{"_id": "{name}"}}')
    items = FileDocuments([f"{tmp_path}/*.jsonl"], FIELDS, max_doc_bytes=1000).items()
    assert [item.doc_id for item in items if isinstance(item, Document)] == ["a.jsonl", "b.jsonl"]


@pytest.mark.case("I36")
@pytest.mark.parametrize("pattern", ["missing.jsonl", "*.nothing", "."])
def test_a_source_that_cannot_be_read_is_a_usage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError):
        FileDocuments([pattern], FIELDS, max_doc_bytes=1000)


@pytest.mark.case("I36")
def test_an_empty_pipe_has_no_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(b""))))
    source = FileDocuments(["-"], FIELDS, max_doc_bytes=1000)
    assert list(source.items()) == []
    assert not source.resumable


def test_identity_changes_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "corpus.jsonl"
    file.write_text('{"_id": "1"}\n')
    before = FileDocuments([str(file)], FIELDS, max_doc_bytes=1000).identity
    file.write_text('{"_id": "1"}\n{"_id": "2"}\n')
    assert FileDocuments([str(file)], FIELDS, max_doc_bytes=1000).identity != before


def test_documents_in_memory_are_items_in_order() -> None:
    documents = [Document(str(i), b"{}", {}, SourcePosition("memory", i)) for i in range(3)]
    source = DocumentsInMemory(documents)
    assert (list(source.items(1)), source.total()) == (documents[1:], 3)

"""Files of JSON: each entry once, as the bytes that stand there, or a named problem."""

import io
import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.records import Document
from ingest.sources import json_bytes
from ingest.sources.json_bytes import JsonProblem, elements, parse_object, with_key, without_key
from tests.ingest.sources.reading import LIMIT, bodies, outcome, read, written


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
        patch.setattr(json_bytes, "READ_BYTES", size)
        found = list(elements(io.BytesIO(content), LIMIT))
    assert [number for number, _ in found] == list(range(1, len(values) + 1))
    assert [json.loads(element) for _, element in found] == values


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


DIGITS = b'{"price": 1.10000000000000000001, "count": 123456789012345678901234567890}'


@pytest.mark.case("I16")
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        pytest.param(b'{"a": NaN}', "invalid_json", id="NaN"),
        pytest.param(b'{"a": -Infinity}', "invalid_json", id="infinity"),
        pytest.param(b'{"a": 1, "a": 2}', "duplicate_key", id="key-twice"),
        pytest.param(b'{"x": [{"a": 1, "a": 2}]}', "duplicate_key", id="key-twice-inside"),
        pytest.param(b'{"a": "\\ud800"}', "invalid_json", id="lone-surrogate"),
        pytest.param(b'{"a": "\xff"}', "invalid_utf8", id="no-utf8"),
        pytest.param(b'{"a": "\x00"}', "invalid_json", id="nul"),
        pytest.param(b'{"a": "cut', "invalid_json", id="truncated"),
        pytest.param(b'{"a": 1} {"b": 2}', "invalid_json", id="two-objects"),
        pytest.param(b'["a"]', "not_an_object", id="array"),
        pytest.param(b'{"a":' * 5000 + b"1" + b"}" * 5000, "nested_too_deeply", id="depth-5000"),
    ],
)
def test_what_opensearch_would_refuse_is_found(body: bytes, kind: str) -> None:
    with pytest.raises(JsonProblem) as found:
        parse_object(body)
    assert found.value.kind == kind


def test_numbers_of_any_length_are_kept_as_written() -> None:
    digits = "9" * 5000
    assert parse_object(f'{{"n": {digits}}}'.encode()) == {"n": digits}


@pytest.mark.case("I16")
def test_splicing_keeps_every_digit() -> None:
    assert with_key(DIGITS, "neural", b'{"stamp":"s"}') == DIGITS[:-1] + b',"neural":{"stamp":"s"}}'
    assert without_key(b'{"_id": 7, ' + DIGITS[1:], "_id") == DIGITS.replace(b": ", b":").replace(b", ", b",")


@pytest.mark.parametrize(
    ("body", "spliced"),
    [
        pytest.param(b"{}", b'{"neural":1}', id="empty"),
        pytest.param(b' { "a" : 2 } ', b'{"a" : 2,"neural":1}', id="spaces"),
        pytest.param(b'{"a":\r\n2\n}', b'{"a":  2,"neural":1}', id="newlines-would-break-a-bulk-body"),
        pytest.param(b'{"neural": {"x": 1}, "a": 2.0}', b'{"a":2.0,"neural":1}', id="old-value-replaced"),
        pytest.param(b'{"a": "neural"}', b'{"a": "neural","neural":1}', id="same-word-as-a-value"),
        pytest.param(b'{"b": {"neural": 3}}', b'{"b": {"neural": 3},"neural":1}', id="same-word-inside"),
    ],
)
def test_our_object_is_set_whatever_the_body_looks_like(body: bytes, spliced: bytes) -> None:
    assert with_key(body, "neural", b"1") == spliced


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(scalars | texts, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=8)


@given(st.dictionaries(texts, values), st.booleans())
def test_splicing_changes_nothing_else(document: dict[str, object], ascii_only: bool) -> None:
    body = json.dumps(document, ensure_ascii=ascii_only, indent=1).encode()
    spliced = with_key(body, "neural", b"[1]")
    assert b"\n" not in spliced
    assert json.loads(spliced) == {**document, "neural": [1]}
    assert json.loads(without_key(spliced, "neural")) == {k: v for k, v in document.items() if k != "neural"}

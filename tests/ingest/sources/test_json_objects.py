"""Bodies are cut and spliced as bytes; what OpenSearch would refuse is found before."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.sources.json_objects import JsonProblem, parse_object, with_key, without_key

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

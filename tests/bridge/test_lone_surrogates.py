"""Halves of surrogate pairs become replacement characters, and nothing else changes."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.text import changed, decodable, decode, replace_lone_surrogates


@pytest.mark.case("I39")
@pytest.mark.parametrize(
    ("body", "readable"),
    [
        pytest.param(rb'{"a":"Rain cape \ud83d"}', rb'{"a":"Rain cape \ufffd"}', id="first-half"),
        pytest.param(rb'{"a":"\uDE00 face"}', rb'{"a":"\ufffd face"}', id="second-half"),
        pytest.param(rb'{"a":"\ud83d\ude00"}', rb'{"a":"\ud83d\ude00"}', id="whole-pair"),
        pytest.param(rb'{"a":"\ud83d\ud83d\ude00"}', rb'{"a":"\ufffd\ud83d\ude00"}', id="half-before-a-pair"),
        pytest.param(rb'{"a":"\ude00\ud83d"}', rb'{"a":"\ufffd\ufffd"}', id="wrong-order"),
        pytest.param(rb'{"a":"\\ud83d"}', rb'{"a":"\\ud83d"}', id="an-escaped-backslash"),
        pytest.param(rb'{"a":"\\\ud83d"}', rb'{"a":"\\\ufffd"}', id="behind-an-escaped-backslash"),
        pytest.param(rb'{"\ud83d":1}', rb'{"\ufffd":1}', id="in-a-key"),
        pytest.param(b'{"a":"\xed\xa0\xbd"}', b'{"a":"\xef\xbf\xbd"}', id="encoded-as-a-character"),
    ],
)
def test_each_half_becomes_one_replacement_character(body: bytes, readable: bytes) -> None:
    assert replace_lone_surrogates(body) == readable
    assert decode(body, Any) == json.loads(readable)


@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_sound_json_stays_as_it_is(value: object) -> None:
    for ascii_only in (True, False):
        body = json.dumps(value, ensure_ascii=ascii_only).encode()
        assert replace_lone_surrogates(body) == body


@given(st.text(st.characters() | st.characters(categories=["Cs"]), max_size=20))
def test_any_string_of_a_program_can_be_read(text: str) -> None:
    body = json.dumps({"a": text}).encode()
    pairs = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert len(replace_lone_surrogates(body)) == len(body)
    assert decode(body, dict[str, str])["a"].count("�") == pairs.count("�")


def test_what_is_no_json_stays_an_error() -> None:
    for body in (rb'{"a":"\ud83d"', b"<html>", rb'{"a":"\ud8"}'):
        with pytest.raises(msgspec.DecodeError):
            decode(body, Any)


@given(st.text(st.characters() | st.characters(categories=["Cs"]), max_size=20))
def test_any_string_can_be_decoded_and_gets_its_own_bytes_back(text: str) -> None:
    body = json.dumps({"a": text}).encode()
    readable, restored = decodable(body)
    assert len(readable) == len(body)
    assert restored(bytes(msgspec.json.decode(readable, type=dict[str, msgspec.Raw])["a"])) == json.dumps(text).encode()


def test_a_change_leaves_halves_of_pairs_as_they_were() -> None:
    body = rb'{ "a":"\uD83d \ud83d\ude00 \\ud83d","b":1}'
    assert changed(body, lambda readable: readable.removesuffix(b',"b":1}') + b"}") == body.replace(b',"b":1', b"")
    assert changed(body, lambda readable: bytes(msgspec.json.decode(readable, type=msgspec.Raw))) == body


def test_a_body_that_holds_every_rare_character_is_still_decoded() -> None:
    body = b'{"a":"\\ud83d' + "".join(map(chr, range(0x80, 0x800))).encode() + b'"}'
    readable, _ = decodable(body)
    assert msgspec.json.decode(readable)["a"].startswith("�")

"""What decoders refuse in a cluster's JSON is replaced where it is read, and comes back byte for byte."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.text import NestedTooDeeply, changed, decodable, decode, decode_answer, deep_values, replace_lone_surrogates


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


def nested(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


STRANGE = st.lists(
    st.sampled_from(
        [b"wing", b"\xc0\xaf", b"\xff", b"\xf7\xbf\xbf\xbf", b"\xed\xa0\xbd", b"\\ud83d", b"\\\\", b'\\"', b"]", b"{"]
    )
    | st.text(st.characters(exclude_characters='"\\', exclude_categories=["Cs", "Cc"])).map(str.encode)
).map(b"".join)


@pytest.mark.case("P67")
@given(STRANGE, st.integers(0, 400), STRANGE)
def test_whatever_a_document_holds_can_be_decoded_and_gets_its_own_bytes_back(
    text: bytes, levels: int, key: bytes
) -> None:
    body = b'{"t":"%b","deep":%b,"%b":[1.50,{}]}' % (text, nested(levels), key)
    readable, restored = decodable(body)

    assert restored(readable) == body
    assert msgspec.json.decode(readable)["t"].count("wing") == text.count(b"wing")
    members = msgspec.json.decode(readable, type=dict[str, msgspec.Raw])
    assert [restored(bytes(members[name])) for name in ("t", "deep")] == [b'"%b"' % text, nested(levels)]


@pytest.mark.case("P67")
@pytest.mark.parametrize(
    "text",
    [b"\xc0\xaf", b"\xff", b"\xf7\xbf\xbf\xbf", b"\xe9", b"\\ud83d \xe9"],
    ids=["overlong", "ff", "beyond", "latin-1", "half"],
)
def test_what_is_no_utf_8_becomes_replacement_characters(text: bytes) -> None:
    shown = decode_answer(b'{"a":"red %b shoe"}' % text, dict[str, str])["a"]

    assert shown.startswith("red \ufffd")
    assert shown.endswith(" shoe")


@pytest.mark.case("P67")
def test_a_change_leaves_deep_values_as_they_were() -> None:
    body = b'{"a":1,"deep":' + nested(5000) + b',"b":"\xff"}'

    def without_a(readable: bytes) -> bytes:
        members = msgspec.json.decode(readable, type=dict[str, msgspec.Raw])
        return msgspec.json.encode({name: value for name, value in members.items() if name != "a"})

    assert changed(body, without_a) == body.replace(b'"a":1,', b"", 1)


@pytest.mark.case("P70")
def test_deep_values_are_those_below_so_many_levels() -> None:
    body = rb'{"a":[1,{"b":2}],"]":"\"[[","c":{"d":[]}, "e":[[[ '

    found = [body[start:end] for start, end in deep_values(body, 2)]

    assert found == [b'{"b":2}', b"[]", b"[[ "]
    assert not list(deep_values(nested(100), 100))


@pytest.mark.case("P67", "P70")
def test_what_is_nested_too_deeply_is_an_error_of_its_own_or_a_string() -> None:
    with pytest.raises(NestedTooDeeply):
        decode(nested(5000), Any)
    assert decode_answer(b'{"a":' + nested(5000) + b',"b":"\xff"}', dict[str, Any])["b"] == "\ufffd"

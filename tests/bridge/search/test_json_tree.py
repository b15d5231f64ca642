"""Bodies are taken apart and put together again without a number changing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.search import json_tree


@pytest.mark.parametrize(
    "body",
    [
        b'{"boost":1.10,"big":123456789012345678901234567890,"small":1E-400,"n":-7}',
        b'[null,true,false,"",{},[]]',
        '{"title":"café – 🜁"}'.encode(),
    ],
    ids=["numbers", "values", "letters"],
)
def test_what_is_read_is_written_as_it_was(body: bytes) -> None:
    assert json_tree.write(json_tree.read(body)) == body


@pytest.mark.parametrize(
    "body",
    [b'{"a":1,"a":2}', b"NaN", b"[Infinity]", b'["\\ud83d"]', b"[1] // x", b"\xff", b"[" * 100_000],
    ids=["key-twice", "nan", "infinity", "lone-surrogate", "comment", "no-utf-8", "deep"],
)
def test_what_two_readers_may_read_differently_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):
        json_tree.read(body)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(VALUES)
def test_any_tree_comes_back(tree: json_tree.Json) -> None:
    written = json_tree.write(tree) if not _has_long_integers(tree) else None
    if written is not None:
        assert json_tree.read(written) == tree


def _has_long_integers(tree: json_tree.Json) -> bool:
    if isinstance(tree, dict):
        return any(map(_has_long_integers, tree.values()))
    if isinstance(tree, list):
        return any(map(_has_long_integers, tree))
    return isinstance(tree, int) and abs(tree) >= 10**17

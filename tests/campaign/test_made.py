"""Requests by chance: each number of a seed is one request, in every run."""

from collections import Counter

from tests.campaign.made import made
from tests.campaign.stand import TWINS
from tests.campaign.wire import Request


def test_a_number_of_a_seed_is_always_the_same_request() -> None:
    assert [made(3, number) for number in range(200)] == [made(3, number) for number in range(200)]
    assert made(3, 1) != made(4, 1)


def test_only_requests_to_the_sides_own_index_change_anything() -> None:
    """Whatever is not marked as a write reads, by its method or by its path."""
    reading = (b"_search", b"_msearch", b"_count", b"_doc", b"*", b"/")
    for number in range(3000):
        asked = made(5, number)
        if asked.writes:
            assert asked.request.target.startswith(b"/{twin}/"), asked.request
        elif asked.conditions is None and asked.request.method not in ("GET", "HEAD", "OPTIONS", "TRACE"):
            assert asked.request.method in ("POST", "PATCH", "get", "FOO", "M-SEARCH"), asked.request
            assert any(name in asked.request.target.lower() or name in _decoded(asked.request) for name in reading)


def _decoded(request: Request) -> bytes:
    from urllib.parse import unquote_to_bytes

    return unquote_to_bytes(request.target).lower()


def test_all_kinds_of_requests_come() -> None:
    kinds = Counter[str]()
    for number in range(2000):
        asked = made(6, number, heavy=0.1)
        written = asked.request.bytes_for(TWINS[0])
        kinds["write"] += asked.writes
        kinds["msearch"] += b"_msearch" in asked.request.target
        kinds["template"] += b"/template" in asked.request.target
        kinds["chunked"] += asked.request.framing == "chunked"
        kinds["gzip"] += b"Content-Encoding: gzip" in written
        kinds["large"] += len(written) > 50_000
        kinds["upgrades"] += asked.upgrades
        kinds["doors"] += asked.conditions is not None

    assert min(kinds.values()) >= 10, kinds

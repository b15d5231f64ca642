"""Refusals in the cluster's own words."""

import json

from opensearchpy import TransportError

from bridge.proxy.transport.refusals import Refused


def test_a_refusal_reads_like_an_error_of_the_cluster() -> None:
    body = json.loads(Refused(429, "circuit_breaking_exception", "too much at once").body())

    assert body == {
        "error": {
            "root_cause": [{"type": "circuit_breaking_exception", "reason": "too much at once"}],
            "type": "circuit_breaking_exception",
            "reason": "too much at once",
        },
        "status": 429,
    }
    assert "too much at once" in str(TransportError(429, body["error"]["type"], body))


def test_a_reason_may_quote_what_is_no_utf_8() -> None:
    reason = b"header \xff".decode("utf-8", "surrogateescape")

    assert json.loads(Refused(400, "illegal_argument_exception", reason).body())["error"]["reason"] == "header \\udcff"

"""Which requests are left alone whatever their bodies say, by their headers."""

import pytest
from multidict import CIMultiDict

from bridge.proxy.upgrade.planning import Control, left_alone

OWN = "application/vnd.elasticsearch+json; compatible-with=8"


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, None),
        ({"Content-Type": "application/json; charset=UTF-8", "Accept": "*/*"}, None),
        ({"Content-Type": OWN, "Accept": OWN}, None),
        ({"Content-Type": "application/vnd.elasticsearch+x-ndjson;compatible-with=9"}, None),
        ({"Content-Type": "application/vnd.elasticsearch+json", "Accept": "application/vnd.elasticsearch+json"}, None),
        ({"Content-Type": "application/yaml"}, "content_type"),
        ({"Content-Type": "application/vnd.elasticsearch+cbor; compatible-with=8"}, "content_type"),
        ({"Accept": "application/vnd.elasticsearch+smile; compatible-with=8"}, "accept"),
        ({"Authorization": "AWS4-HMAC-SHA256 Credential=x"}, "signed"),
    ],
)
def test_headers_leave_searches_alone(headers: dict[str, str], reason: str | None) -> None:
    found = left_alone(Control(), CIMultiDict(headers))
    assert (found and found.reason) == reason

"""What the bridge does not upgrade is answered as if the proxy were not there."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from bridge.node.node import EmbeddedNode
from bridge.settings import ClusterSettings
from tests.integration.recorded_requests import recorded_requests
from tests.proxy_stack import ProxyStack, proxy_stack
from tests.servers import client, unused_index_name

PROPERTIES = {"kind": {"type": "keyword"}, "n": {"type": "integer"}}
DOCUMENTS = [
    {"title": title, "body": body, "kind": kind, "n": n}
    for n, (title, body, kind) in enumerate(
        [
            ("wing pressure", "supersonic flow over a wing", "paper"),
            ("flat plate", "boundary layer on a plate", "paper"),
            ("red shoe", "cheap red shoe for the garden", "ad"),
            ("blue dress", "a dress and a shoe", "ad"),
            ("read file", "open a file and read a line", "note"),
        ]
    )
]


@pytest.fixture(scope="module")
def stack(node: EmbeddedNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyStack]:
    with proxy_stack(ClusterSettings(url=node.url), tmp_path_factory.mktemp("models")) as running:
        yield running


# What differs between any two requests, whoever asks: times, cursors, identities and dates of indices, Lucene's
# numbers of documents; and the last letter of the two indices' names. In CBOR and Smile only the times, which are
# numbers of one to five bytes.
_VOLATILE = re.compile(
    r'"?took"?\s*:\s*\d+|"(?:_scroll_id|pit_id|(?:index[._])?(?:creation_date(?:_string)?|uuid))"\s*:\s*"[^"]*"'
    r'|"(?:creation_time|task)"\s*:\s*[^,}]+|(?<=took)[^e]{1,6}?(?=[\x00-\xff]timed_out)'
    r"|test-[a-z0-9]+-[dp](?:/[\w-]{22})?"
    r"|(?<= in )\d+(?=\) \[)",
    re.ASCII,
)
_NOT_COMPARED = ("x-bridge", "connection", "keep-alive", "task_resource_usage")


@pytest.mark.case("P1")
@pytest.mark.case("P2")
@pytest.mark.case("P3")
def test_recorded_requests_are_answered_as_without_the_proxy(node: EmbeddedNode, stack: ProxyStack) -> None:
    name = unused_index_name()
    with client(node.url) as direct:
        for index in (f"{name}-d", f"{name}-p"):
            settings = {"number_of_replicas": 0}
            direct.indices.create(index=index, body={"settings": settings, "mappings": {"properties": PROPERTIES}})
            lines: list[dict[str, Any]] = []
            for document in DOCUMENTS:
                lines += [{"index": {"_id": str(document["title"]).split()[1]}}, document]
            direct.bulk(index=index, body=lines, refresh=True)
        straight, proxied = recorded_requests(f"{name}-d"), recorded_requests(f"{name}-p")
        different = []
        for asked_straight, asked in zip(straight, proxied, strict=True):
            expected, got = _answer(node.url, *asked_straight), _answer(stack.url, *asked)
            if got != expected:
                different.append(f"{asked}\n  straight {expected}\n  proxied  {got}")
        for index in (f"{name}-d", f"{name}-p"):
            direct.indices.delete(index=index)

    assert not different, "\n".join(different)
    assert len(proxied) >= 200


def _answer(url: str, method: str, target: str, body: bytes) -> tuple[int, dict[str, str], str]:
    """Status, headers and body, without what differs between any two requests."""
    lines = b"\n" in body
    answer = requests.request(
        method,
        url + target,
        data=body or None,
        headers={"Content-Type": "application/x-ndjson" if lines else "application/json"} if body else {},
        timeout=60,
    )
    text = answer.content.decode("latin-1")
    content = _VOLATILE.sub("", text)
    headers = {
        name.lower(): _VOLATILE.sub("", value)
        for name, value in answer.headers.items()
        if name.lower() not in _NOT_COMPARED and (name.lower() != "content-length" or content == text)
    }
    return answer.status_code, headers, content

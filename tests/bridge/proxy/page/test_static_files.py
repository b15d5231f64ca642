"""The page's files run nothing but themselves."""

import json

from bridge.proxy.page.static_files import SECURITY_HEADERS
from tests.bridge.proxy.conftest import MakeStack
from tests.bridge.proxy.scripted_index import QUERY, ScriptedIndex

SEARCH = "/_bridge/cluster/docs/_search"


async def test_every_part_of_the_page_comes_with_the_security_headers(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex())

    for path, media_type in (
        ("/_bridge/", "text/html"),
        ("/_bridge/page/page.css", "text/css"),
        ("/_bridge/page/page.js", "text/javascript"),
        ("/_bridge/page/icon.svg", "image/svg+xml"),
    ):
        async with stack.client.get(stack.proxy.admin_url + path) as answer:
            assert answer.status == 200, path
            assert answer.content_type == media_type
            assert dict(answer.headers) | SECURITY_HEADERS == dict(answer.headers)
            tag = answer.headers["ETag"]
        async with stack.client.get(stack.proxy.admin_url + path, headers={"If-None-Match": tag}) as again:
            assert again.status == 304
            assert await again.read() == b""


async def test_the_page_can_be_switched_off(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(), page=False)

    for path in ("/_bridge/", "/_bridge/page/page.js", "/_bridge/about"):
        async with stack.client.get(stack.proxy.admin_url + path) as answer:
            assert answer.status == 404, path
    async with stack.client.post(stack.proxy.admin_url + SEARCH, data=json.dumps(QUERY)) as answer:
        assert answer.status == 404
    assert stack.cluster.received == []

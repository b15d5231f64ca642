"""What the proxy changes for clients that would not stay, or not come, otherwise; and where its own endpoints are."""

import json
from typing import Any

import pytest
from yarl import URL

from bridge.errors import SettingsError
from bridge.settings import load_settings
from tests.bridge.proxy.conftest import MakeStack
from tests.bridge.proxy.scripted_index import ScriptedIndex
from tests.fake_cluster import Received, Reply


def echo(request: Received) -> Reply:
    return Reply(body=request.target.encode())


@pytest.mark.parametrize(
    ("target", "reaching"),
    [
        ("/search/docs/_doc/1?x=%2F", "/docs/_doc/1?x=%2F"),
        ("/search", "/"),
        ("/search/", "/"),
        ("/search?pretty", "/?pretty"),
        ("/searches/_doc/1", "/searches/_doc/1"),
        ("/docs/search/_x", "/docs/search/_x"),
    ],
)
async def test_the_path_prefix_is_taken_off(make_stack: MakeStack, target: str, reaching: str) -> None:
    stack = await make_stack(echo, path_prefix="/search")

    async with stack.client.get(URL(f"{stack.proxy.url}{target}", encoded=True)) as answer:
        assert (await answer.read()).decode() == reaching


@pytest.mark.parametrize("prefix", ["search", "/search/", "/a?b", "/a#b", "//"])
def test_a_prefix_that_is_no_path_is_refused(prefix: str) -> None:
    with pytest.raises(SettingsError, match="path_prefix"):
        load_settings(proxy={"path_prefix": prefix})


@pytest.mark.case("P36")
@pytest.mark.parametrize(
    ("door", "path", "body"),
    [
        ("retrieve", "retrieve", {"index": "docs", "queries": ["red shoe"]}),
        ("suggest", "suggest", {"index": "docs", "prefix": ""}),
        ("mcp", "mcp", {"jsonrpc": "2.0", "id": 1, "method": "ping"}),
        ("openai", "openai/v1/vector_stores/docs/search", {"query": "red shoe"}),
    ],
    ids=["retrieve", "suggest", "mcp", "openai"],
)
@pytest.mark.parametrize(
    ("setting", "operators", "applications"),
    [("operators", 200, 404), ("applications", 404, 200), ("off", 404, 404)],
)
async def test_one_listener_answers_or_none(
    make_stack: MakeStack,
    door: str,
    path: str,
    body: dict[str, Any],
    setting: str,
    operators: int,
    applications: int,
) -> None:
    index = ScriptedIndex()

    def script(request: Received) -> Reply:
        return Reply(404, b"{}") if request.path.startswith("/_bridge") else index(request)

    stack = await make_stack(script, **{door: setting})

    for url, expected in ((stack.proxy.admin_url, operators), (stack.proxy.url, applications)):
        async with stack.client.post(f"{url}/_bridge/{path}", data=json.dumps(body)) as answer:
            assert answer.status == expected

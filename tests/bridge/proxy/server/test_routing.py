"""What the proxy changes for clients that would not stay, or not come, otherwise."""

import pytest
from yarl import URL

from bridge.errors import SettingsError
from bridge.settings import load_settings
from tests.bridge.proxy.conftest import MakeStack
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

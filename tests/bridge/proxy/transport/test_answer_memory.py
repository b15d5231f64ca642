"""Answers are read whole only if they fit."""

import aiohttp
import pytest

from bridge.proxy.transport.answer_memory import AnswerMemory
from tests.bridge.proxy.conftest import MakeStack
from tests.bridge.proxy.scripted_index import ScriptedIndex
from tests.bridge.proxy.searching import ids, search
from tests.fake_cluster import Received, Reply, fake_cluster, reply_json


def test_a_share_is_half_of_what_others_leave_at_most() -> None:
    memory = AnswerMemory(1_000)

    with memory.share() as first, memory.share() as second:
        assert first.fits(500)
        assert not first.fits(501)
        first.hold(500)
        assert first.fits(500), "its own bytes are no others'"
        assert second.fits(250)
        assert not second.fits(251)
        second.hold(900)
        assert memory.free == -400, "what is there already counts, whether it fits or not"
    assert memory.free == 1_000


@pytest.mark.case("P39")
@pytest.mark.parametrize(
    "headers", [(("content-length", "600"),), (("transfer-encoding", "chunked"),)], ids=["announced", "chunked"]
)
@pytest.mark.parametrize(("limit", "read"), [(1_200, True), (1_199, False)])
async def test_an_answer_is_read_as_far_as_it_fits(headers: tuple[tuple[str, str]], limit: int, read: bool) -> None:
    content = b"x" * 600
    body = b"258\r\n%s\r\n0\r\n\r\n" % content if "chunked" in headers[0] else content
    memory = AnswerMemory(limit)

    async with fake_cluster(lambda _: Reply(body=body, headers=headers)) as cluster, aiohttp.ClientSession() as client:
        with memory.share() as share:
            async with client.get(cluster.url) as answer:
                assert await share.read(answer) == (content if read else None)
            assert memory.held == (600 if read else 0)
    assert memory.held == 0


ENDLESS = Reply(body=b'{"docs":{"mappings":{"_meta":{"more":"%s"}}}}' % (b"x" * 300_000))
"""Longer than there is memory for."""


@pytest.mark.case("P44")
@pytest.mark.parametrize(
    ("profile", "endpoint", "target", "mark"),
    [
        (True, "_mapping", "/docs/_search", "pass; reason=mapping_unreadable"),
        (False, "neural-bridge.docs~2/_mapping", "/docs/_search", "pass; reason=no_profile"),
        (True, "_render/template", "/docs/_search/template", "pass; reason=template_unreadable"),
        (True, "_msearch", "/docs/_search", "lexical; degraded=legs_unavailable;"),
    ],
)
async def test_nothing_larger_than_the_memory_is_read_for_a_search(
    make_stack: MakeStack, profile: bool, endpoint: str, target: str, mark: str
) -> None:
    index = ScriptedIndex() if profile else ScriptedIndex(profile=None)

    def script(request: Received) -> Reply:
        return ENDLESS if request.path.endswith(endpoint) else index(request)

    stack = await make_stack(script, upgrade_memory_bytes=400_000, profile_ttl_s=600)

    marks = [await search(stack, target=target, x_bridge="hybrid") for _ in range(2)]

    for status, shown, answer in marks:
        assert (status, ids(answer)) == (200, ["a", "b", "c"])
        assert shown.startswith(mark)
    # What was too large is not read for each search anew.
    assert len([each for each in stack.cluster.received if each.path.endswith("_mapping")]) <= 2


@pytest.mark.case("P44")
@pytest.mark.parametrize("limit", [1_000_000, 100_000])
async def test_a_translated_answer_that_does_not_fit_is_streamed_as_it_is(make_stack: MakeStack, limit: int) -> None:
    documents = {"docs": [{"_index": "docs", "_id": "1", "_source": {"title": "x" * 200_000}}]}
    stack = await make_stack(lambda _: reply_json(documents), upgrade_memory_bytes=limit, es_compat=True)

    headers = {"X-Elastic-Client-Meta": "es=7.17.0"}
    async with stack.client.get(f"{stack.proxy.url}/docs/_mget", headers=headers) as answer:
        [document] = (await answer.json())["docs"]

    assert document.pop("_type", None) == ("_doc" if limit > 400_000 else None)
    assert document == documents["docs"][0]

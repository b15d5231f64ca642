"""Answers share a bounded memory, and large ones leave room for small ones."""

import aiohttp
import pytest

from bridge.proxy.upgrade.answer_memory import AnswerMemory
from tests.fake_cluster import Reply, fake_cluster


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

"""Connections carry requests as the cluster's nodes read them, and none can hold the others up."""

import asyncio
import json
import resource

import aiohttp
import pytest
from structlog.testing import capture_logs

from bridge.proxy.server.routing import ConnectionServer
from tests.bridge.proxy.conftest import LARGE, MakeStack, all_answered, closed, slow_reader
from tests.bridge.proxy.scripted_index import QUERY, ScriptedIndex
from tests.fake_cluster import Reply, reply_json


def request(line: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join((line, b"Host: x", b"Connection: close", *headers, b"", b""))


@pytest.mark.case("P49")
@pytest.mark.parametrize("target", ["/docs/_search?q=title:café", "/läden/_count", "/docs/_doc/ü?routing=é"])
async def test_raw_utf_8_in_a_target_reaches_the_cluster_byte_for_byte(make_stack: MakeStack, target: str) -> None:
    stack = await make_stack(ScriptedIndex(faults={"_count": Reply()}))

    answer = await stack.raw(request(f"GET {target} HTTP/1.1".encode()))

    assert answer.startswith(b"HTTP/1.1 200"), answer
    assert stack.cluster.received[-1].target == target


@pytest.mark.case("P49")
async def test_a_request_line_that_comes_in_parts_is_read_whole(make_stack: MakeStack) -> None:
    stack = await make_stack(lambda _: Reply())
    reader, writer = await asyncio.open_connection(stack.proxy.host, stack.proxy.port)
    for part in (b"GET /caf\xc3", b"\xa9?q=\xc3\xa9 HTTP/1.1\r\nHost: x\r\n", b"\r\n"):
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0.01)
    await reader.readuntil(b"{}")
    await closed(writer)

    assert [received.target for received in stack.cluster.received] == ["/café?q=é"]


@pytest.mark.case("P49")
async def test_a_request_before_the_last_ones_answer_is_read_as_any_other(make_stack: MakeStack) -> None:
    """Nothing says when a client sends its next request: the connection has to know where the last one ends."""
    stack = await make_stack(lambda request: Reply(delay_s=0.5 if request.method == "POST" else 0.0))
    reader, writer = await asyncio.open_connection(stack.proxy.host, stack.proxy.port)
    for part in ("POST /café/_doc HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n", "X-Utf: é\r\n\r\n", "é\n\n"):
        writer.write(part.encode())
        await writer.drain()
        await asyncio.sleep(0.01)
    await stack.cluster.has_received(1)
    writer.write("GET /café?q=ü HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    for _ in range(2):
        await reader.readuntil(b"{}")
    writer.write("GET /é HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await reader.readuntil(b"{}")
    await closed(writer)

    assert [received.target for received in stack.cluster.received] == ["/café/_doc", "/café?q=ü", "/é"]
    assert stack.cluster.received[0].header("X-Utf") == "é"
    assert stack.cluster.received[0].body == "é\n\n".encode()


@pytest.mark.case("P37", "P49")
@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /secret words HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (request(b"GET /x?q=secret\xe9 HTTP/1.1"), 400),
        (request(b"GET /x HTTP/1.1", b"X-Long: " + b"secret" * 5_000), 431),
    ],
)
async def test_a_malformed_request_is_an_error_of_the_clusters_kind_and_is_not_logged(
    make_stack: MakeStack, caplog: pytest.LogCaptureFixture, sent: bytes, status: int
) -> None:
    stack = await make_stack(lambda _: Reply())

    with capture_logs() as lines:
        head, _, body = (await stack.raw(sent)).partition(b"\r\n\r\n")

    assert head.split(b" ")[1] == str(status).encode()
    assert json.loads(body)["status"] == status
    assert b"secret" not in body
    assert "secret" not in caplog.text + json.dumps(lines)
    assert stack.cluster.received == []


@pytest.mark.case("P50")
@pytest.mark.parametrize(("header", "status"), [(b"Expect: \xff", 417), (b"x-bridge: \xff", 400)])
async def test_headers_that_are_no_utf_8_are_refused_in_json(make_stack: MakeStack, header: bytes, status: int) -> None:
    stack = await make_stack(ScriptedIndex())

    head, _, body = (await stack.raw(request(b"GET /docs/_search HTTP/1.1", header))).partition(b"\r\n\r\n")

    assert head.split(b" ")[1] == str(status).encode()
    assert json.loads(body)["error"]["type"] == "illegal_argument_exception"


@pytest.mark.case("P51")
async def test_a_transfer_coding_beside_chunked_is_not_lost(make_stack: MakeStack) -> None:
    stack = await make_stack(lambda _: Reply())

    answer = await stack.raw(request(b"POST /_bulk HTTP/1.1", b"Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 501"), answer
    assert stack.cluster.received == []


@pytest.mark.case("P38")
async def test_headers_together_have_a_limit_that_is_told(make_stack: MakeStack) -> None:
    stack = await make_stack(lambda _: Reply(), max_headers_bytes=7_000)
    many = [b"X-%d: %s" % (i, b"v" * 1_000) for i in range(7)]

    head, _, body = (await stack.raw(request(b"GET /x HTTP/1.1", *many))).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 431")
    assert "proxy.max_headers_bytes (7000)" in json.loads(body)["error"]["reason"]
    assert stack.cluster.received == []


def header_size(value: str | None) -> Reply:
    return Reply(403) if value is None else reply_json({"defaults": {"http": {"max_header_size": value}}})


@pytest.mark.case("P38")
@pytest.mark.parametrize(("told", "n_taken"), [("8kb", 7), ("16kb", 15), ("32768b", 32), (None, 7)])
async def test_the_limit_of_all_headers_is_the_nodes_own(make_stack: MakeStack, told: str | None, n_taken: int) -> None:
    stack = await make_stack(lambda asked: header_size(told) if asked.path == "/_cluster/settings" else Reply())

    async def status(n_headers: int) -> bytes:
        kilobytes = [b"X-%02d: %b" % (i, b"v" * 992) for i in range(n_headers)]
        return (await stack.raw(request(b"GET /x HTTP/1.1", *kilobytes))).split(b" ")[1]

    assert await status(7) == b"200"
    assert stack.cluster.requests("/_cluster/settings") == [], "every node takes so many"
    assert [await status(n) for n in (n_taken, n_taken + 1)] == [b"200", b"431"]
    assert len(stack.cluster.requests("/_cluster/settings")) == 1


@pytest.mark.case("P38")
async def test_a_cluster_that_falls_silent_is_not_waited_for_for_ever(make_stack: MakeStack) -> None:
    stack = await make_stack(lambda _: Reply(delay_s=60.0), read_timeout_s=0.2)

    async with stack.client.get(f"{stack.proxy.url}/_nodes") as answer:
        assert answer.status == 504
        assert (await answer.json())["error"]["type"] == "cluster_timeout_exception"


@pytest.mark.case("P38")
@pytest.mark.parametrize("status", [400, 413, 431])
async def test_a_connection_serves_again_only_after_a_request_that_the_node_read(
    make_stack: MakeStack, status: int
) -> None:
    stack = await make_stack(lambda request: Reply(status=status if request.path == "/refused" else 200))
    for path in ("/fine", "/refused", "/fine"):
        async with stack.client.get(stack.proxy.url + path) as answer:
            await answer.read()

    assert [received.connection for received in stack.cluster.received] == [1, 1, 2]


@pytest.mark.case("P27", "P39")
@pytest.mark.parametrize("target", ["/_nodes", "/docs/_search"], ids=["passed", "upgraded"])
async def test_a_client_that_does_not_read_its_answer_is_cut_off(make_stack: MakeStack, target: str) -> None:
    large = ScriptedIndex(titles={"a": "x" * LARGE}, faults={"_nodes": Reply(body=b"x" * LARGE)})
    stack = await make_stack(large, answer_idle_timeout_s=0.5)

    async with slow_reader(stack, target) as (head, reader):
        async with asyncio.timeout(60):
            await all_answered(stack)
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await reader.readexactly(LARGE)
    assert head.startswith(b"HTTP/1.1 200")


@pytest.mark.case("P27", "P39")
async def test_a_client_that_reads_slowly_but_steadily_has_its_whole_answer(make_stack: MakeStack) -> None:
    # All parts together take longer than the wait for one of them.
    stack = await make_stack(lambda _: Reply(body=b"x" * LARGE), answer_idle_timeout_s=2.0)
    received = 0

    async with slow_reader(stack, "/_nodes") as (_, reader):
        async with asyncio.timeout(120):
            while received < LARGE:
                received += len(await reader.read(256 * 1024))
                await asyncio.sleep(0.1)

    assert received == LARGE


@pytest.mark.case("P59")
@pytest.mark.parametrize("target", ["/x", "/docs/_search", "/_bridge/retrieve"])
async def test_a_draining_proxy_answers_each_connection_once_more(make_stack: MakeStack, target: str) -> None:
    index = ScriptedIndex(faults={"x": Reply(delay_s=0.5), "own": Reply(delay_s=0.5)})
    stack = await make_stack(index, retrieve="applications")
    body = json.dumps({"index": "docs", "queries": ["red shoe"]} if target.startswith("/_bridge") else QUERY)

    async def ask() -> str | None:
        async with stack.client.post(
            stack.proxy.url + target, data=body, headers={"Content-Type": "application/json"}
        ) as answer:
            assert answer.status == 200
            await answer.read()
            return answer.headers.get("Connection")

    async def ready() -> int:
        async with stack.client.get(f"{stack.proxy.admin_url}/_bridge/ready") as answer:
            return answer.status

    assert (await ask(), await ready()) == (None, 200)
    n_before = len(stack.cluster.received)
    under_way = asyncio.create_task(ask())
    await stack.cluster.has_received(n_before + 1)
    stack.proxy.drain()

    assert await ready() == 503
    assert await under_way == "close"
    assert await ask() == "close"


@pytest.mark.case("P40")
async def test_idle_connections_are_closed_in_time(make_stack: MakeStack) -> None:
    stack = await make_stack(lambda _: Reply(), idle_timeout_s=0.2)
    reader, writer = await asyncio.open_connection(stack.proxy.host, stack.proxy.port)
    writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readuntil(b"{}")

    async with asyncio.timeout(10):
        assert await reader.read() == b""
    await closed(writer)


@pytest.mark.case("P40")
async def test_idle_connections_make_way_before_descriptors_run_out(
    make_stack: MakeStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (60, 60))
    stack = await make_stack(lambda _: Reply())
    connections = [await asyncio.open_connection(stack.proxy.host, stack.proxy.port) for _ in range(20)]
    for reader, writer in connections[-8:]:
        writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"{}")

    async with asyncio.timeout(10):
        for reader, _ in connections[:12]:
            assert await reader.read() == b""
    async with aiohttp.ClientSession() as client, client.get(f"{stack.proxy.admin_url}/_bridge/health") as answer:
        assert answer.status == 200
    for _, writer in connections:
        await closed(writer)


async def test_with_ample_descriptors_connections_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (4_096, 4_096))

    assert ConnectionServer(lambda _: None, write_timeout_s=1).max_connections == 2_016

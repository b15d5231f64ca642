import asyncio
import gzip
import io
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from multidict import CIMultiDict
from yarl import URL

from bridge.proxy.server.app import running
from bridge.proxy.transport.passthrough import AnswerMemory, Inbound, read_body
from bridge.settings import ClusterSettings, ProxySettings, Settings
from tests.bridge.proxy.conftest import MakeStack, closed
from tests.bridge.proxy.scripted_index import QUERY, ScriptedIndex
from tests.bridge.proxy.searching import ids, search
from tests.fake_cluster import Received, Reply, fake_cluster, reply_json

OK = Reply(body=b'{"ok":true}')


def echo(request: Received) -> Reply:
    return Reply(body=request.target.encode())


@pytest.mark.case("P1")
async def test_answers_come_back_with_status_headers_and_bytes_unchanged(make_stack: MakeStack) -> None:
    headers = (
        ("X-OpenSearch-Version", "OpenSearch/3.6.0"),
        ("Warning", '299 OpenSearch-3.6.0 "one"'),
        ("Warning", '299 OpenSearch-3.6.0 "two"'),
        ("X-Elastic-Product", "Elasticsearch"),
        ("Set-Cookie", "session=a; Path=/"),
        ("content-type", "application/vnd.elasticsearch+json;compatible-with=8"),
    )
    stack = await make_stack(lambda _: Reply(418, b"\x00\xffnot json", headers))

    async with stack.client.put(f"{stack.proxy.url}/index/_doc/1?refresh", data=b"{}") as answer:
        assert answer.status == 418
        assert await answer.read() == b"\x00\xffnot json"
        came = [(name.lower(), value) for name, value in answer.headers.items() if name.lower() != "content-length"]
        assert came == [(name.lower(), value) for name, value in headers]


@pytest.mark.case("P8")
@pytest.mark.parametrize(
    "target",
    [
        "/a%2Fb/_doc/1%20x",
        "/%3Clogs-%7Bnow%2Fd%7D%3E/_search",
        "/index/_search?q=a+b%20c&filter_path=hits.hits._id",
        "/a,b,-c/_count?x",
        "/x?a=%zz&b=100%",
        "//index//_doc/1",
        "/a/../b/./c",
        "/%2e%2e/%2E",
        "/%C3%BC%20index/_settings",
        "/a;b=c/_x?q=\"quoted\"&r='s'",
        "/x?a=1&a=2&&b=",
    ],
)
async def test_the_target_reaches_the_cluster_byte_for_byte(make_stack: MakeStack, target: str) -> None:
    stack = await make_stack(echo)

    async with stack.client.get(URL(stack.proxy.url + target, encoded=True)) as answer:
        assert (await answer.read()).decode() == target

    assert [request.target for request in stack.cluster.received if "_mapping" not in request.target] == [target]


@pytest.mark.case("P4")
async def test_compressed_bodies_are_not_touched(make_stack: MakeStack) -> None:
    packed = gzip.compress(b'{"packed":true}')
    stack = await make_stack(
        lambda _: Reply(body=packed, headers=(("content-encoding", "gzip"), ("content-type", "application/json")))
    )

    async with stack.client.post(
        f"{stack.proxy.url}/_bulk", data=packed, headers={"Content-Encoding": "gzip", "Accept-Encoding": "gzip, zstd"}
    ) as answer:
        assert await answer.read() == packed
        assert answer.headers["Content-Encoding"] == "gzip"

    [request] = stack.cluster.received
    assert request.body == packed
    assert request.header("content-encoding") == "gzip"
    assert request.header("accept-encoding") == "gzip, zstd"


@pytest.mark.case("P4")
@pytest.mark.parametrize("chunked", [False, True])
async def test_large_bodies_keep_their_framing(make_stack: MakeStack, chunked: bool) -> None:
    body = bytes(range(256)) * 40_000
    stack = await make_stack(lambda request: reply_json({"bytes": len(request.body)}))

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 100_000):
            yield body[start : start + 100_000]

    async with stack.client.post(f"{stack.proxy.url}/_bulk", data=pieces() if chunked else io.BytesIO(body)) as answer:
        assert await answer.json() == {"bytes": len(body)}

    [request] = stack.cluster.received
    assert request.body == body
    assert (request.header("transfer-encoding") == "chunked") is chunked
    assert request.header("content-length") == (None if chunked else str(len(body)))


@pytest.mark.case("P4")
async def test_large_answers_are_streamed_whole(make_stack: MakeStack) -> None:
    body = bytes(range(256)) * 4_000
    stack = await make_stack(lambda _: Reply(body=body))

    async with stack.client.get(f"{stack.proxy.url}/_nodes/stats") as answer:
        assert await answer.read() == body
        assert answer.headers["Content-Length"] == str(len(body))


@pytest.mark.case("P4")
async def test_head_keeps_its_length_and_has_no_body(make_stack: MakeStack) -> None:
    stack = await make_stack(lambda _: Reply(headers=(("content-length", "123"), ("content-type", "text/plain"))))

    answer = await stack.raw(b"HEAD /index HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.lower().endswith(b"\r\n\r\n")
    assert b"content-length: 123" in answer.lower()


@pytest.mark.case("P4")
@pytest.mark.parametrize("status", [204, 304])
async def test_answers_without_a_body_stay_without(make_stack: MakeStack, status: int) -> None:
    stack = await make_stack(lambda _: Reply(status, b"", (("etag", "x"), ("content-length", "0"))))

    answer = await stack.raw(b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 %d" % status)
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.case("P4")
async def test_a_client_that_waits_for_100_is_invited(make_stack: MakeStack) -> None:
    stack = await make_stack(lambda request: reply_json({"bytes": len(request.body)}))
    reader, writer = await asyncio.open_connection(stack.proxy.host, stack.proxy.port)
    writer.write(b"POST /_bulk HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")

    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"

    writer.write(b"abc")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    assert await reader.readexactly(11) == b'{"bytes":3}'
    await closed(writer)
    assert stack.cluster.received[0].header("expect") is None


@pytest.mark.case("P5")
@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST /_bulk HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + b'{"index":{}}\n{}\n' * 4,
        b"POST /_bulk HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n" + b'{"index":{}}\n{}\n\r\n',
        b"POST /_bulk HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n"
        + b'{"index":{}}\n{}\n\r\nZZ\r\nabc\r\n0\r\n\r\n',
    ],
    ids=["content-length", "chunked", "malformed chunk"],
)
async def test_an_upload_that_breaks_off_never_becomes_a_shorter_one(
    make_stack: MakeStack, request_bytes: bytes
) -> None:
    stack = await make_stack(lambda _: OK)
    _, writer = await asyncio.open_connection(stack.proxy.host, stack.proxy.port)
    writer.write(request_bytes)
    await writer.drain()
    await asyncio.sleep(0.2)
    await closed(writer)

    await asyncio.sleep(0.3)

    assert [request.body for request in stack.cluster.received if request.complete] == []


HOST = b"Host: x\r\n"
MARKER = b"GET /marker HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
SMUGGLING: dict[str, bytes] = {
    "length and chunked": HOST + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX",
    "chunked and length": HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 60\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "two equal lengths": HOST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "two lengths": HOST + b"Content-Length: 3\r\nContent-Length: 50\r\n\r\nabc" + SMUGGLED,
    "a list of lengths": HOST + b"Content-Length: 3, 3\r\n\r\nabc",
    "a signed length": HOST + b"Content-Length: +3\r\n\r\nabc",
    "a negative length": HOST + b"Content-Length: -1\r\n\r\n" + SMUGGLED,
    "a hexadecimal length": HOST + b"Content-Length: 0x3\r\n\r\nabc",
    "an underscored length": HOST + b"Content-Length: 1_0\r\n\r\n0123456789",
    "an empty length": HOST + b"Content-Length: \r\n\r\n" + SMUGGLED,
    "a length with a space inside": HOST + b"Content-Length: 3 3\r\n\r\nabc",
    "a huge length": HOST + b"Content-Length: 99999999999999999999999999\r\n\r\nabc",
    "chunked twice": HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked, then identity": HOST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "an unknown coding": HOST + b"Transfer-Encoding: xchunked\r\nContent-Length: 3\r\n\r\nabc",
    "an obscured coding": HOST + b"Transfer-Encoding: \x0bchunked\r\nContent-Length: 3\r\n\r\nabc",
    "a tab before the coding's colon": HOST + b"Transfer-Encoding\t: chunked\r\nContent-Length: 3\r\n\r\nabc",
    "a space before the length's colon": HOST + b"Content-Length : 3\r\n\r\nabc",
    "a coding folded": HOST + b"Transfer-Encoding:\r\n chunked\r\nContent-Length: 3\r\n\r\nabc",
    "a folded header": HOST + b"X: a\r\n b\r\n\r\n",
    "a header without a name": HOST + b": x\r\n\r\n",
    "a header with a zero": HOST + b"X: a\x00b\r\n\r\n",
    "a carriage return in a header": HOST + b"X: a\rTransfer-Encoding: chunked\r\n\r\n",
    "bare line feeds": b"Host: x\nContent-Length: 3\n\nabc",
    "a bad chunk size": HOST + b"Transfer-Encoding: chunked\r\n\r\nG\r\nabc\r\n0\r\n\r\n",
    "a signed chunk size": HOST + b"Transfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n",
    "a hexadecimal prefix": HOST + b"Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
    "a chunk longer than it says": HOST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n0\r\n\r\n",
    "a line feed in a chunk's extension": HOST + b"Transfer-Encoding: chunked\r\n\r\n3;a\nb\r\nabc\r\n0\r\n\r\n",
    "a chunk ended by a line feed": HOST + b"Transfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n",
    "a huge chunk size": HOST + b"Transfer-Encoding: chunked\r\n\r\n" + b"F" * 40 + b"\r\nabc",
    "chunked in HTTP/1.0": HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "no host": b"X: y\r\n\r\n",
    "two hosts": HOST + b"Host: evil\r\n\r\n",
    "a body on GET": HOST + b"Content-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED,
    "length hidden as hop-by-hop": HOST + b"Connection: content-length\r\nContent-Length: 37\r\n\r\n" + SMUGGLED,
    "host hidden as hop-by-hop": HOST + b"Connection: close, host\r\n\r\n",
    "an upgrade": HOST + b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
    "an HTTP/2 preface": HOST + b"\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a header of 64 KB": HOST + b"X: " + b"a" * 65_536 + b"\r\n\r\n",
    "two hundred headers": HOST + b"".join(b"X-%d: y\r\n" % i for i in range(200)) + b"\r\n",
}
FIRST_LINES = {"chunked in HTTP/1.0": b"POST /first HTTP/1.0\r\n", "a body on GET": b"GET /first HTTP/1.1\r\n"}
BAD_FIRST_LINES: dict[str, bytes] = {
    "no version": b"GET /first\r\n",
    "an unknown version": b"GET /first HTTP/3.7\r\n",
    "a line feed in the method": b"GE\nT /first HTTP/1.1\r\n",
    "two spaces": b"GET  /first HTTP/1.1\r\n",
    "a target with a space": b"GET /a b HTTP/1.1\r\n",
    "a line of 64 KB": b"GET /" + b"a" * 65_536 + b" HTTP/1.1\r\n",
}
SMUGGLING |= dict.fromkeys(BAD_FIRST_LINES, HOST + b"\r\n")


@pytest.mark.case("P6")
@pytest.mark.parametrize("name", SMUGGLING)
async def test_nothing_is_smuggled_to_the_cluster(make_stack: MakeStack, name: str) -> None:
    stack = await make_stack(lambda _: OK)
    first_line = (FIRST_LINES | BAD_FIRST_LINES).get(name, b"POST /first HTTP/1.1\r\n")

    await stack.raw(first_line + SMUGGLING[name] + MARKER, until_closed=False, timeout_s=1.0)

    # The client sent one request and a marker; a body that looks like a request is a body.
    targets = [request.target for request in stack.cluster.received]
    assert targets in ([], ["/first"], ["/first", "/marker"], ["/marker"])
    for request in stack.cluster.received:
        names = [header.lower() for header, _ in request.headers]
        assert not ({"content-length", "transfer-encoding"} <= set(names))
        assert names.count("content-length") <= 1
        assert names.count("host") == 1


@pytest.mark.case("P7")
@pytest.mark.parametrize(
    "request_line",
    [
        b"GET http://evil.example:9200/x HTTP/1.1",
        b"GET @evil.example/x HTTP/1.1",
        b"GET //evil.example/x HTTP/1.1",
        b"GET /\\evil.example HTTP/1.1",
        b"GET \\\\evil.example\\x HTTP/1.1",
        b"GET ?x HTTP/1.1",
        b"GET * HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"CONNECT evil.example:443 HTTP/1.1",
        b"GET /x#fragment HTTP/1.1",
        b"GET /x@evil.example:80/y HTTP/1.1",
    ],
)
async def test_only_the_configured_cluster_is_ever_contacted(make_stack: MakeStack, request_line: bytes) -> None:
    stack = await make_stack(lambda _: OK)

    answer = await stack.raw(
        request_line + b"\r\nHost: evil.example\r\nX-Forwarded-Host: evil.example\r\nConnection: close\r\n\r\n"
    )

    # Nothing resolves evil.example here: an answer of the cluster or a refusal, never a lookup.
    assert re.match(rb"HTTP/1\.[01] (200|400|404|405)", answer), answer
    for request in stack.cluster.received:
        assert request.target == request_line.split(b" ")[1].decode()


@pytest.mark.case("P7")
async def test_redirects_are_given_to_the_client_and_not_followed(make_stack: MakeStack) -> None:
    stack = await make_stack(lambda _: Reply(302, b"", (("location", "http://evil.example/x"),)))

    async with stack.client.get(f"{stack.proxy.url}/x", allow_redirects=False) as answer:
        assert answer.status == 302
        assert answer.headers["Location"] == "http://evil.example/x"


@pytest.mark.case("P9")
async def test_hop_by_hop_headers_end_here(make_stack: MakeStack) -> None:
    stack = await make_stack(lambda _: OK)

    await stack.raw(
        b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close, x-secret\r\nX-Secret: 1\r\nTE: trailers\r\n"
        b"Keep-Alive: timeout=5\r\nProxy-Authorization: Basic x\r\nX-Kept: 2\r\n\r\n"
    )

    [request] = stack.cluster.received
    names = {name.lower() for name, _ in request.headers}
    assert "x-kept" in names
    assert names.isdisjoint({"x-secret", "te", "keep-alive", "proxy-authorization", "upgrade"})


@pytest.mark.case("P9")
@pytest.mark.parametrize("header", ["authorization", "Cookie", "content-type"])
async def test_connection_cannot_strip_what_decides_the_request(make_stack: MakeStack, header: str) -> None:
    stack = await make_stack(lambda _: OK)

    answer = await stack.raw(
        f"GET /x HTTP/1.1\r\nHost: x\r\nConnection: {header}\r\nAuthorization: Basic x\r\n\r\n".encode()
    )

    assert answer.startswith(b"HTTP/1.1 400")
    assert stack.cluster.received == []


@pytest.mark.case("P10")
async def test_headers_that_clusters_trust_from_proxies_are_stripped(make_stack: MakeStack) -> None:
    stack = await make_stack(lambda _: OK)
    headers = {
        "x-proxy-user": "admin",
        "X_Proxy_Roles": "all_access",
        "X-Proxy_Ext": "1",
        "opendistro_security_impersonate_as": "someone",
        "X-Forwarded-For": "10.9.8.7",
        "X-Opaque-Id": "abc",
        "traceparent": "00-1-2-01",
        "securitytenant": "mine",
    }

    async with stack.client.get(f"{stack.proxy.url}/x", headers=headers) as answer:
        await answer.read()

    [request] = stack.cluster.received
    assert not [name for name, _ in request.headers if name.lower().replace("_", "-").startswith("x-proxy")]
    assert request.header("opendistro_security_impersonate_as") == "someone"
    assert request.header("x-forwarded-for") == "10.9.8.7, 127.0.0.1"
    assert (request.header("x-opaque-id"), request.header("traceparent")) == ("abc", "00-1-2-01")
    assert request.header("securitytenant") == "mine"


@pytest.mark.case("P11")
async def test_no_cookie_or_credential_crosses_from_one_caller_to_another(make_stack: MakeStack) -> None:
    def script(request: Received) -> Reply:
        return Reply(body=b"{}", headers=(("set-cookie", f"user={request.header('authorization')}; Path=/"),))

    stack = await make_stack(script)
    callers = [None, "alice", None, "bob", None]
    for caller in callers:
        async with stack.client.get(
            f"{stack.proxy.url}/x", headers={"Authorization": caller} if caller else {}
        ) as answer:
            await answer.read()
            assert answer.headers["Set-Cookie"] == f"user={caller}; Path=/"

    assert [request.header("authorization") for request in stack.cluster.received] == callers
    assert [request.header("cookie") for request in stack.cluster.received] == [None] * len(callers)
    assert {request.connection for request in stack.cluster.received} == {1}


@pytest.mark.case("P17")
async def test_a_cluster_that_is_down_is_an_opensearch_error(make_stack: MakeStack) -> None:
    stack = await make_stack(lambda _: OK)
    unused = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = unused.sockets[0].getsockname()[1]
    unused.close()
    settings = Settings(
        cluster=ClusterSettings(url=f"http://127.0.0.1:{port}"), proxy=ProxySettings(port=0, admin_port=0)
    )
    async with running(settings) as proxy, stack.client.get(f"{proxy.url}/_cat/indices") as answer:
        assert answer.status == 503
        error = await answer.json()
        assert error["status"] == 503
        assert error["error"]["root_cause"][0]["type"] == error["error"]["type"] == "cluster_unreachable_exception"
        async with stack.client.get(f"{proxy.admin_url}/_bridge/ready") as ready:
            assert ready.status == 503
        async with stack.client.get(f"{proxy.admin_url}/_bridge/health") as health:
            assert health.status == 200


@pytest.mark.case("P17")
@pytest.mark.parametrize(
    ("method", "target", "attempts"),
    [
        ("GET", "/index/_doc/1", 2),
        ("HEAD", "/index", 2),
        ("POST", "/_bulk", 1),
        ("PUT", "/index/_doc/1", 1),
        ("DELETE", "/index/_doc/1", 1),
        ("POST", "/index/_search/scroll", 1),
        ("GET", "/_search/scroll?scroll_id=x", 1),
        ("POST", "/index/_search/point_in_time?keep_alive=1m", 1),
    ],
)
async def test_only_reads_are_repeated_when_a_connection_breaks(
    make_stack: MakeStack, method: str, target: str, attempts: int
) -> None:
    stack = await make_stack(lambda request: OK if request.path == "/warm" else Reply(break_after=0))
    async with stack.client.get(f"{stack.proxy.url}/warm") as warm:
        await warm.read()

    async with stack.client.request(method, f"{stack.proxy.url}{target}") as answer:
        assert answer.status == 502

    assert len([request for request in stack.cluster.received if request.path != "/warm"]) == attempts


@pytest.mark.case("P18")
async def test_half_an_answer_breaks_the_clients_connection(make_stack: MakeStack) -> None:
    body = b"x" * 200_000
    stack = await make_stack(lambda _: Reply(body=body, break_after=100_000, headers=(("content-length", "200000"),)))

    with pytest.raises(aiohttp.ClientPayloadError):
        async with stack.client.get(f"{stack.proxy.url}/_nodes") as answer:
            await answer.read()


@pytest.mark.case("P18")
async def test_half_a_small_answer_is_an_error(make_stack: MakeStack) -> None:
    stack = await make_stack(lambda _: Reply(body=b"x" * 1000, break_after=10, headers=(("content-length", "1000"),)))

    async with stack.client.get(f"{stack.proxy.url}/_nodes") as answer:
        assert answer.status == 502


@pytest.mark.case("P19")
async def test_a_client_that_leaves_takes_its_request_with_it(make_stack: MakeStack) -> None:
    stack = await make_stack(lambda _: Reply(delay_s=600))
    asking = asyncio.create_task(stack.raw(b"GET /slow/_search HTTP/1.1\r\nHost: x\r\n\r\n", timeout_s=600))
    await stack.cluster.has_received(1)

    asking.cancel()

    async with asyncio.timeout(60):
        while not stack.cluster.cancelled:  # noqa: ASYNC110 - the scripted cluster looks every 20 ms
            await asyncio.sleep(0.01)


@pytest.mark.case("P27")
async def test_slow_clients_are_shut_out_and_others_are_served(make_stack: MakeStack) -> None:
    stack = await make_stack(lambda _: OK, header_timeout_s=0.5, body_idle_timeout_s=0.5)
    half_header = [await asyncio.open_connection(stack.proxy.host, stack.proxy.port) for _ in range(50)]
    half_body = [await asyncio.open_connection(stack.proxy.host, stack.proxy.port) for _ in range(20)]
    for _, writer in half_header:
        writer.write(b"GET /x HTTP/1.1\r\nHost:")
    for _, writer in half_body:
        writer.write(b"POST /_bulk HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")

    async with stack.client.get(f"{stack.proxy.url}/x") as answer:
        assert answer.status == 200
    async with asyncio.timeout(60):
        assert [await reader.read() for reader, _ in half_header] == [b""] * 50
        assert all([(await reader.read()).startswith(b"HTTP/1.1 408") for reader, _ in half_body])

    for _, writer in (*half_header, *half_body):
        await closed(writer)
    assert [request.target for request in stack.cluster.received if request.complete] == ["/x"]


@pytest.mark.case("P36")
async def test_operators_pages_are_on_their_own_port_and_hold_no_secret(make_stack: MakeStack) -> None:
    stack = await make_stack(lambda _: Reply(404, b"{}"))

    async with stack.client.get(f"{stack.proxy.url}/_bridge/config") as answer:
        assert answer.status == 404
    assert stack.cluster.received[-1].target == "/_bridge/config"
    async with stack.client.get(f"{stack.proxy.admin_url}/_bridge/config") as answer:
        assert "cluster" in await answer.json()
    async with stack.client.get(f"{stack.proxy.admin_url}/_bridge/metrics") as answer:
        exposition = await answer.text()
    assert 'bridge_proxy_requests_total{code="404",decision="pass",route="other"} 1.0' in exposition


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


@pytest.mark.case("P71")
@pytest.mark.parametrize(
    ("target", "settings", "x_bridge"),
    [
        ("/_nodes/http", {}, "off"),
        ("/", {"es_compat": True}, "off"),
        ("/docs/_search", {"es_compat": True}, "off"),
        ("/docs/_search", {}, "hybrid"),
        ("/docs/_search", {}, "lexical"),
        ("/docs/_search", {}, "off"),
        ("/docs/_msearch", {}, "hybrid"),
        ("/docs/_msearch", {}, "lexical"),
    ],
)
async def test_a_client_that_leaves_while_its_answer_is_read_takes_the_connection_with_it(
    make_stack: MakeStack, target: str, settings: dict[str, Any], x_bridge: str
) -> None:
    sent = json.dumps(QUERY).encode()
    sent = b"{}\n%b\n" % sent if target.endswith("_msearch") else sent
    index = ScriptedIndex()
    half = Reply(body=b'{"took":1,', headers=(("content-type", "application/json"), ("content-length", "100000")))

    def script(request: Received) -> Reply:
        return half if is_own(request) else index(request)

    def is_own(request: Received) -> bool:
        return (request.path, request.body) == (target, sent)

    stack = await make_stack(script, **settings)
    request = (
        f"{'POST' if 'search' in target else 'GET'} {target} HTTP/1.1\r\nHost: x\r\nx-bridge: {x_bridge}\r\n"
        f"X-Elastic-Client-Meta: es=7.17.0\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(sent)}\r\n\r\n".encode()
    )
    asking = asyncio.create_task(stack.raw(request + sent, timeout_s=600))
    while not (own := [each for each in stack.cluster.received if is_own(each)]):
        await stack.cluster.has_received(len(stack.cluster.received) + 1)

    asking.cancel()

    async with asyncio.timeout(60):
        await stack.cluster.has_lost(own[0].connection)
        await asyncio.wait([asking])


@pytest.mark.case("P69")
@pytest.mark.parametrize("packed", [False, True])
async def test_a_body_counts_from_its_first_byte_unpacked_or_not(packed: bool) -> None:
    plain = b"x" * 600
    body = gzip.compress(plain) if packed else plain
    memory = AnswerMemory(2_000)
    held: list[int] = []

    async def arriving() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 10):
            yield body[start : start + 10]
            held.append(memory.held)

    headers = CIMultiDict({"Content-Encoding": "gzip"} if packed else {})
    request = Inbound("POST", "/docs/_search", headers, arriving())
    with memory.share() as first, memory.share() as second:
        assert (await read_body(request, first, limit=1_000))[1] == plain
        assert held == [min(10 * (i + 1), len(body)) for i in range(len(held))]
        assert memory.held == len(body) + (600 if packed else 0)
        rest, read = await read_body(Inbound("POST", "/", CIMultiDict(), _whole(b"y" * 800)), second, limit=1_000)
        assert read is None
        assert rest.body is not None
        assert not isinstance(rest.body, bytes)
        assert b"".join([chunk async for chunk in rest.body]) == b"y" * 800
    assert memory.held == 0


async def _whole(body: bytes) -> AsyncIterator[bytes]:
    yield body

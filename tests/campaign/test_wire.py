"""Requests go out byte for byte, and answers are read whole."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.campaign.wire import NO_ANSWER, Answer, Connection, Request


@asynccontextmanager
async def scripted(*answers: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that gives these answers in turn, whatever it is asked, and what it was asked."""
    asked: list[bytes] = []
    left = iter(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            asked.append(data)
            answer = next(left, b"")
            writer.write(answer)
            if not answer or answer.endswith(b"END"):
                break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


def test_a_request_is_written_as_it_was_made_with_the_sides_own_index() -> None:
    request = Request("PUT", b"/{twin}/_doc/\xff", ((b"X-Latin", b"caf\xe9"),), b'{"in":"{twin}"}')

    assert request.bytes_for("twin-d", ((b"x-bridge", b"off"),)) == (
        b"PUT /twin-d/_doc/\xff HTTP/1.1\r\nHost: cluster\r\nX-Latin: caf\xe9\r\nx-bridge: off\r\n"
        b'Content-Length: 15\r\n\r\n{"in":"twin-d"}'
    )


def test_a_chunked_request_ends_with_an_empty_chunk() -> None:
    written = Request("POST", b"/", body=b"abc", framing="chunked").bytes_for("x")

    assert written.endswith(b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n")


async def test_answers_are_read_by_length_by_chunks_and_to_the_end() -> None:
    chunks = b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
    chunked = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
    answers = (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", chunked, b"HTTP/1.1 404 None\r\n\r\nall END")
    async with scripted(*answers) as (url, asked):
        connection = Connection(url)
        got = [await connection.ask(b"GET / HTTP/1.1\r\n\r\n", timeout_s=30) for _ in answers]
        await connection.close()

    assert [(each.status, each.body) for each in got] == [(200, b"abc"), (200, b"abc"), (404, b"all END")]
    assert len(asked) == 3


async def test_an_answer_that_breaks_off_counts_as_none() -> None:
    async with scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\nEND") as (url, _):
        answer = await Connection(url).ask(b"GET / HTTP/1.1\r\n\r\n", timeout_s=30)

    assert (answer.status, answer.fault[:19]) == (NO_ANSWER, "IncompleteReadError")


def test_content_is_read_through_the_compression_that_the_headers_name() -> None:
    assert Answer(200, (("content-encoding", "gzip"),), gzip.compress(b"x")).content == b"x"
    assert Answer(200, (), b"x").content == b"x"

"""What the benchmark of replicas stands on does what its figures take for granted."""

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from benchmarks.replica_stack import behind_nginx, cpu_s, machine_cpu_s, remembering

NAME = web.AppKey("name", str)


@pytest.fixture
async def cluster() -> AsyncIterator[tuple[str, list[str]]]:
    """A server that answers with how many requests it has had, and these."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(f"{request.method} {request.raw_path} {await request.text()}")
        return web.json_response({"n": len(asked)}, status=200 + len(asked) % 2)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/"), asked


async def test_a_remembered_cluster_is_asked_once_for_each_request(cluster: tuple[str, list[str]]) -> None:
    url, asked = cluster
    async with remembering(url) as remembered, aiohttp.ClientSession() as session:
        answers = []
        for path, body in (("/a%2Fb/_search?x=1", "{}"), ("/a%2Fb/_search?x=1", "{}"), ("/a%2Fb/_search?x=1", "[]")):
            async with session.post(f"{remembered}{path}", data=body) as answer:
                answers.append((answer.status, answer.content_type, await answer.text()))
    assert asked == ["POST /a%2Fb/_search?x=1 {}", "POST /a%2Fb/_search?x=1 []"]
    assert answers[0] == answers[1] == (201, "application/json", '{"n": 1}')
    assert answers[2] == (200, "application/json", '{"n": 2}')


@pytest.mark.skipif(not shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin"), reason="nginx is not installed")
async def test_searches_are_shared_among_the_replicas_behind_nginx(tmp_path: Path) -> None:
    async def name(request: web.Request) -> web.Response:
        return web.Response(text=request.app[NAME])

    servers = []
    for each in ("first", "second", "cluster"):
        app = web.Application()
        app[NAME] = each
        app.router.add_route("*", "/{path:.*}", name)
        servers.append(TestServer(app))
    for server in servers:
        await server.start_server()
    try:
        first, second, cluster = (str(server.make_url("")).rstrip("/") for server in servers)
        starting = behind_nginx(tmp_path, [first, second], cluster)
        url = await asyncio.to_thread(starting.__enter__)
        try:
            async with aiohttp.ClientSession() as session:
                answered = []
                for path in ["/products/_search"] * 4 + ["/products/_doc/1"]:
                    async with session.get(f"{url}{path}") as answer:
                        answered.append(await answer.text())
        finally:
            await asyncio.to_thread(starting.__exit__, None, None, None)
    finally:
        for server in servers:
            await server.close()
    assert sorted(answered[:4]) == ["first", "first", "second", "second"]
    assert answered[4] == "cluster"


def test_processor_time_of_a_process_is_part_of_the_machines() -> None:
    mine, machine = cpu_s([os.getpid()]), machine_cpu_s()
    while cpu_s([os.getpid()]) - mine < 0.2:
        sum(range(100_000))
    assert 0.2 <= cpu_s([os.getpid()]) - mine <= machine_cpu_s() - machine + 0.05
    assert time.process_time() == pytest.approx(cpu_s([os.getpid()]), abs=0.1)

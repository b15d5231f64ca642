"""The proxy as a process: start, stop, and what operators see."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import http_parser
from click.testing import CliRunner

from bridge.cli import cli
from bridge.errors import UsageError
from bridge.proxy.server.app import assert_c_parser, running
from bridge.settings import ClusterSettings, ProxySettings, Settings
from tests.fake_cluster import fake_cluster


async def test_a_taken_port_is_named_with_a_remedy() -> None:
    async with fake_cluster() as cluster:
        port = int(cluster.url.rpartition(":")[2])
        settings = Settings(cluster=ClusterSettings(url=cluster.url), proxy=ProxySettings(port=port, admin_port=0))

        with pytest.raises(UsageError, match=f":{port} .*choose another port"):
            async with running(settings):
                pass


def test_the_parser_in_python_is_refused() -> None:
    slow = cast(Any, SimpleNamespace(HttpRequestParser=1, HttpRequestParserPy=1))

    assert_c_parser(http_parser)
    with pytest.raises(UsageError, match="C parser"):
        assert_c_parser(slow)


def test_a_search_from_the_command_line_names_what_is_missing() -> None:
    outcome = CliRunner().invoke(cli, ["search", "docs", "red shoe", "--url", "http://127.0.0.1:9"])

    assert outcome.exit_code != 0
    assert "neural-bridge serve" in str(outcome.exception)

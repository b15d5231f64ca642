"""The proxy as a process: start, stop, and what operators see."""

import asyncio
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import http_parser
from click.testing import CliRunner
from pydantic import SecretStr

from bridge.cli import cli
from bridge.errors import SettingsError, UsageError
from bridge.proxy.server import certificates
from bridge.proxy.server.app import assert_c_parser, running
from bridge.proxy.transport.refusals import Refused
from bridge.proxy.transport.upstream import Upstream
from bridge.proxy.upgrade.planning import Control, read_control
from bridge.settings import ClusterSettings, ProxySettings, Settings
from tests.fake_cluster import Reply, fake_cluster


@asynccontextmanager
async def proxy_process(
    cluster_url: str, *, timeout_s: float = 60.0
) -> AsyncIterator[tuple[asyncio.subprocess.Process, dict[str, Any]]]:
    """`neural-bridge serve proxy` and its first log line; the block may take `timeout_s`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "bridge.cli", "serve", "proxy", "--port", "0", "--admin-port", "0", "--cluster", cluster_url),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "BRIDGE_PROXY__SHUTDOWN_TIMEOUT_S": "10"},
    )
    try:
        assert process.stderr is not None
        async with asyncio.timeout(timeout_s):
            yield process, json.loads(await process.stderr.readline())
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.case("P32")
async def test_accepted_requests_are_finished_and_no_others_taken() -> None:
    async with (
        fake_cluster(lambda _: Reply(body=b"done", delay_s=1.5)) as cluster,
        proxy_process(cluster.url) as (process, ready),
        aiohttp.ClientSession() as client,
    ):

        async def ask() -> tuple[int, bytes]:
            async with client.get(f"{ready['url']}/slow") as answer:
                return answer.status, await answer.read()

        asked = [asyncio.create_task(ask()) for _ in range(20)]
        async with asyncio.timeout(20):
            await cluster.has_received(20)
        process.send_signal(signal.SIGTERM)

        assert await asyncio.gather(*asked) == [(200, b"done")] * 20
        assert await process.wait() == 0
        with pytest.raises(aiohttp.ClientConnectorError):
            await ask()


@pytest.mark.case("P37")
async def test_the_configuration_shown_masks_secrets() -> None:
    settings = Settings(
        cluster=ClusterSettings(url="http://127.0.0.1:9", username="reader", password=SecretStr("hush")),
        proxy=ProxySettings(port=0, admin_port=0),
    )
    async with (
        running(settings) as proxy,
        aiohttp.ClientSession() as client,
        client.get(f"{proxy.admin_url}/_bridge/config") as answer,
    ):
        shown = await answer.text()

    assert '"username":"reader"' in shown
    assert "hush" not in shown


async def test_a_taken_port_is_named_with_a_remedy() -> None:
    async with fake_cluster() as cluster:
        port = int(cluster.url.rpartition(":")[2])
        settings = Settings(cluster=ClusterSettings(url=cluster.url), proxy=ProxySettings(port=port, admin_port=0))

        with pytest.raises(UsageError, match=f":{port} .*choose another port"):
            async with running(settings):
                pass


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1", "127.0.0.1:9200", "http://127.0.0.1:9200/prefix", "http://user:pw@127.0.0.1:9200"]
)
def test_an_address_that_cannot_be_used_is_refused_at_start(url: str) -> None:
    with pytest.raises(SettingsError, match=r"cluster\.url"):
        Upstream(ClusterSettings(url=url))


def test_the_parser_in_python_is_refused() -> None:
    slow = cast(Any, SimpleNamespace(HttpRequestParser=1, HttpRequestParserPy=1))

    assert_c_parser(http_parser)
    with pytest.raises(UsageError, match="C parser"):
        assert_c_parser(slow)


@pytest.mark.parametrize(
    ("header", "control"),
    [
        (None, Control()),
        ("", Control()),
        ("off", Control(off=True)),
        ("Explain", Control(explain=True)),
        ("hybrid, explain", Control(stage="hybrid", explain=True)),
        (" rerank ,", Control(stage="rerank")),
        ("hybrid, Vector = 2, lexical=0", Control(stage="hybrid", weights={"vector": 2.0, "lexical": 0.0})),
    ],
)
def test_the_control_header_is_read(header: str | None, control: Control) -> None:
    assert read_control(header) == control


@pytest.mark.parametrize(
    "header",
    [
        "fast",
        "hybrid, rerank",
        "explain=true",
        "vector=-1",
        "vector=much",
        "vector=inf",
        "sparse=1",
        "vector=1, vector=2",
    ],
)
def test_unknown_words_in_the_control_header_are_refused(header: str) -> None:
    with pytest.raises(Refused, match="expected one of off, lexical"):
        read_control(header)


def test_a_search_from_the_command_line_names_what_is_missing() -> None:
    outcome = CliRunner().invoke(cli, ["search", "docs", "red shoe", "--url", "http://127.0.0.1:9"])

    assert outcome.exit_code != 0
    assert "neural-bridge serve" in str(outcome.exception)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that signs itself, and its key beside it."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


def make_certificate(folder: Path) -> Path:
    """Writes cluster.pem and key.pem."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on the path to make a certificate")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=cluster"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cluster.pem")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return folder / "cluster.pem"


@pytest.mark.case("P34")
@pytest.mark.parametrize(("trusted", "verify", "status"), [(True, True, 200), (False, True, 503), (False, False, 200)])
async def test_only_a_trusted_certificate_is_spoken_to(
    certificate: Path, trusted: bool, verify: bool, status: int
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, certificate.with_name("key.pem"))
    async with fake_cluster(tls=tls) as cluster, aiohttp.ClientSession() as client:
        known = ClusterSettings(url=cluster.url, ca_file=certificate if trusted else None, verify_tls=verify)
        async with (
            running(Settings(cluster=known, proxy=ProxySettings(port=0, admin_port=0))) as proxy,
            client.get(f"{proxy.url}/") as answer,
        ):
            assert answer.status == status
            if status == 503:
                assert "certificate" in (await answer.json())["error"]["reason"]
                assert cluster.received == []


def test_a_file_that_holds_no_certificate_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")

    with pytest.raises(SettingsError, match=r"ca\.pem .* PEM file"):
        Upstream(ClusterSettings(url="https://127.0.0.1:9200", ca_file=tmp_path / "ca.pem"))


@pytest.mark.case("P34")
async def test_applications_are_shown_a_certificate_and_its_renewal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "LOOK_EVERY_S", 0.05)
    shown = make_certificate(tmp_path)
    first = shown.read_bytes()
    async with fake_cluster() as cluster:
        tls_files = {"tls_certificate_file": shown, "tls_key_file": tmp_path / "key.pem"}
        settings = Settings(
            cluster=ClusterSettings(url=cluster.url), proxy=ProxySettings(port=0, admin_port=0, **tls_files)
        )
        async with running(settings) as proxy:

            async def trusted(certificate: bytes) -> bool:
                context = ssl.create_default_context(cadata=certificate.decode())
                connector = aiohttp.TCPConnector(ssl=context)
                try:
                    async with (
                        aiohttp.ClientSession(connector=connector) as client,
                        client.get(f"{proxy.url}/") as answer,
                    ):
                        return answer.status == 200
                except aiohttp.ClientConnectorCertificateError:
                    return False

            assert proxy.url.startswith("https://")
            assert await trusted(first)
            renewed = make_certificate(tmp_path).read_bytes()
            async with asyncio.timeout(60):
                while not await trusted(renewed):
                    pass
            assert not await trusted(first)


@pytest.mark.parametrize("given", ["tls_certificate_file", "tls_key_file"])
async def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path, given: str) -> None:
    (tmp_path / "some.pem").write_text("nothing")
    proxy = ProxySettings(port=0, admin_port=0, **{given: tmp_path / "some.pem"})

    with pytest.raises(SettingsError, match=r"proxy\.tls_certificate_file"):
        async with running(Settings(cluster=ClusterSettings(url="http://127.0.0.1:9"), proxy=proxy)):
            pass

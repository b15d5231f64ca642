"""Certificates are verified, shown and renewed without a restart."""

import asyncio
import os
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from bridge import certificates
from bridge.certificates import Authorities, ServerCertificate
from bridge.cluster.connection import connect
from bridge.errors import ClusterUnreachable, SettingsError
from bridge.proxy.server.app import running
from bridge.proxy.transport.upstream import Upstream
from bridge.settings import ClusterSettings, ProxySettings, Settings, SidecarSettings
from tests.fake_cluster import fake_cluster, reply_json


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


async def shows(url: str, certificate: bytes) -> bool:
    """Whether a new connection is shown a certificate that this one signed."""
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cadata=certificate.decode()))
    try:
        async with aiohttp.ClientSession(connector=connector) as client, client.get(f"{url}/health") as answer:
            return answer.status < 600
    except aiohttp.ClientConnectorError:
        return False


@pytest.mark.case("S11")
@pytest.mark.parametrize("first_renewed", ["cluster.pem", "key.pem"])
async def test_a_pair_that_does_not_match_yet_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first_renewed: str
) -> None:
    monkeypatch.setattr(certificates, "LOOK_EVERY_S", 0.01)
    shown = make_certificate(tmp_path)
    first = shown.read_bytes()
    (tmp_path / "new").mkdir()
    renewed = make_certificate(tmp_path / "new").read_bytes()
    pair = ServerCertificate(shown, tmp_path / "key.pem", section="proxy")
    watch = asyncio.create_task(certificates.renew(pair.files, pair.renew))
    async with served_securely(pair.context) as url:
        assert await shows(url, first)
        with capture_logs() as lines:
            shutil.copyfile(tmp_path / "new" / first_renewed, tmp_path / first_renewed)
            async with asyncio.timeout(30):
                while not any("cannot be used" in line["event"] for line in lines):
                    assert await shows(url, first)
        assert await shows(url, first)
        for name in ("cluster.pem", "key.pem"):
            shutil.copyfile(tmp_path / "new" / name, tmp_path / name)
        async with asyncio.timeout(30):
            while not await shows(url, renewed):
                pass
        assert not await shows(url, first)
    watch.cancel()


@asynccontextmanager
async def served_securely(tls: ssl.SSLContext) -> AsyncIterator[str]:
    runner = web.AppRunner(web.Application())
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        yield f"https://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.case("R30")
async def test_the_sidecars_certificate_is_renewed_as_the_proxys(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"sidecar\.tls_key_file is set without sidecar\.tls_certificate_file"):
        ServerCertificate.of(SidecarSettings(tls_key_file=tmp_path / "key.pem"), section="sidecar")
    shown = make_certificate(tmp_path)
    pair = ServerCertificate.of(
        SidecarSettings(tls_certificate_file=shown, tls_key_file=tmp_path / "key.pem"), section="sidecar"
    )
    assert pair is not None
    first = shown.read_bytes()
    (tmp_path / "other").mkdir()
    shutil.copyfile(make_certificate(tmp_path / "other"), shown)
    with pytest.raises(SettingsError, match=r"sidecar\.tls_certificate_file .* belong together"):
        pair.renew()
    async with served_securely(pair.context) as url:
        assert await shows(url, first)


@pytest.mark.case("S12")
async def test_an_authority_that_is_taken_out_is_not_trusted_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "LOOK_EVERY_S", 0.05)
    shown = make_certificate(tmp_path)
    (tmp_path / "other").mkdir()
    other = make_certificate(tmp_path / "other")
    authorities = tmp_path / "ca.pem"
    authorities.write_bytes(shown.read_bytes() + other.read_bytes())
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(shown, tmp_path / "key.pem")
    async with fake_cluster(tls=tls) as cluster, aiohttp.ClientSession() as client:
        known = ClusterSettings(url=cluster.url, ca_file=authorities)
        async with running(Settings(cluster=known, proxy=ProxySettings(port=0, admin_port=0))) as proxy:

            async def status() -> int:
                async with client.get(f"{proxy.url}/") as answer:
                    return answer.status

            assert await status() == 200
            with capture_logs() as lines:
                authorities.write_bytes(b"half a file")
                async with asyncio.timeout(30):
                    while not any("cannot be used" in line["event"] for line in lines):
                        assert await status() == 200
            assert await status() == 200
            authorities.write_bytes(other.read_bytes())
            async with asyncio.timeout(30):
                while await status() != 503:
                    pass
            authorities.write_bytes(shown.read_bytes())
            async with asyncio.timeout(30):
                while await status() != 200:
                    pass


@pytest.mark.case("S12")
async def test_commands_that_run_long_do_not_trust_it_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "LOOK_EVERY_S", 0.0)
    shown = make_certificate(tmp_path)
    (tmp_path / "other").mkdir()
    other = make_certificate(tmp_path / "other")
    authorities = tmp_path / "ca.pem"
    authorities.write_bytes(shown.read_bytes())
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(shown, tmp_path / "key.pem")
    async with fake_cluster(lambda _: reply_json({"found": True}), tls=tls) as cluster:
        client = connect(ClusterSettings(url=cluster.url, ca_file=authorities))

        async def is_trusted() -> bool:
            try:
                return bool((await asyncio.to_thread(client.get, index="docs", id="1"))["found"])
            except ClusterUnreachable:
                return False

        assert await is_trusted()
        authorities.write_bytes(b"half a file")
        assert await is_trusted()
        authorities.write_bytes(other.read_bytes())
        assert not await is_trusted()
        authorities.write_bytes(shown.read_bytes())
        assert await is_trusted()
        client.close()


@pytest.mark.parametrize("given", ["tls_certificate_file", "tls_key_file"])
async def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path, given: str) -> None:
    (tmp_path / "some.pem").write_text("nothing")
    proxy = ProxySettings(port=0, admin_port=0, **{given: tmp_path / "some.pem"})

    with pytest.raises(SettingsError, match=r"proxy\.tls_certificate_file"):
        async with running(Settings(cluster=ClusterSettings(url="http://127.0.0.1:9"), proxy=proxy)):
            pass


@pytest.mark.case("S18")
@pytest.mark.parametrize("first", ["half", "empty"])
async def test_a_file_that_was_read_half_written_is_read_again_though_it_looks_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    monkeypatch.setattr(certificates, "LOOK_EVERY_S", 0.01)
    shown = make_certificate(tmp_path)
    whole = shown.read_bytes()
    tried = asyncio.Queue[bool]()

    def load() -> None:
        try:
            ServerCertificate(shown, tmp_path / "key.pem", section="proxy")
        except SettingsError:
            tried.put_nowait(False)
            raise
        tried.put_nowait(True)

    with capture_logs() as lines:
        watch = asyncio.create_task(certificates.renew([shown], load))
        await asyncio.sleep(0)
        shown.write_bytes(whole[:100].ljust(len(whole)) if first == "half" else b" " * len(whole))
        seen = shown.stat()
        async with asyncio.timeout(30):
            assert [await tried.get() for _ in range(3)] == [False] * 3
            # The rest arrives with the same size, within the same tick of the clock.
            with shown.open("r+b") as file:
                file.write(whole)
            os.utime(shown, ns=(seen.st_atime_ns, seen.st_mtime_ns))
            while not await tried.get():
                pass
        watch.cancel()

    assert [line["log_level"] for line in lines] == ["warning", "info"]


@pytest.mark.case("S18")
def test_authorities_that_were_read_half_written_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "LOOK_EVERY_S", 0.0)
    shown = make_certificate(tmp_path)
    whole = shown.read_bytes()
    authorities = Authorities(ClusterSettings(url="https://127.0.0.1:1", ca_file=shown))
    with capture_logs() as lines:
        shown.write_bytes(b" " * len(whole))
        seen = shown.stat()
        assert [authorities.renewed(), authorities.renewed()] == [None, None]
        shown.write_bytes(whole)
        os.utime(shown, ns=(seen.st_atime_ns, seen.st_mtime_ns))
        assert authorities.renewed() is not None
        assert authorities.renewed() is None

    assert [line["log_level"] for line in lines] == ["warning"]

"""Each way not to reach a cluster has its own message without secrets."""

import json
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from opensearchpy import NotFoundError, RequestError
from pydantic import SecretStr
from structlog.testing import capture_logs

from bridge.cluster.connection import capabilities, connect, exchange
from bridge.errors import (
    AccessDenied,
    AnswerNotUnderstood,
    ClusterBlocked,
    ClusterUnreachable,
    IndexUnsuitable,
    SettingsError,
)
from bridge.settings import ClusterSettings
from tests.fake_bulk import FakeCluster, Reply, error_body, fake_cluster


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with fake_cluster() as cluster:
        yield cluster


def certificate(folder: Path, *, names: str, days: int = 2) -> Path:
    """A self-signed certificate `cert.pem`; gives back the file that holds it and its key."""
    key, cert, both = folder / "key.pem", folder / "cert.pem", folder / "server.pem"
    openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-subj", "/CN=test", "-addext", f"subjectAltName={names}", "-keyout", key, "-out", cert),
    )
    # `req` refuses to make an expired certificate; re-signing does not.
    openssl("x509", "-in", cert, "-signkey", key, "-days", str(days), "-out", cert)
    both.write_bytes(key.read_bytes() + cert.read_bytes())
    return both


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def serving(pem: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


def test_capabilities_name_distribution_version_and_knn(cluster: FakeCluster) -> None:
    found = capabilities(connect(ClusterSettings(url=cluster.url)))
    assert str(found) == "opensearch 3.6.0"
    assert found.has_knn


@pytest.mark.case("I32")
def test_refused_credentials_and_missing_permission_read_differently(cluster: FakeCluster) -> None:
    client = connect(ClusterSettings(url=cluster.url, username="ingest", password=SecretStr("s3cret")))
    cluster.on_request = lambda _: Reply(401, b"Unauthorized", {"content-type": "text/plain"})
    with pytest.raises(AccessDenied, match=r"refused the credentials \(401\)"):
        client.info()
    cluster.on_request = lambda _: Reply(403, error_body(403, "security_exception"))
    with pytest.raises(AccessDenied, match="grant the permission"):
        client.info()


@pytest.mark.case("I51")
def test_a_cluster_that_cannot_answer_now_says_what_to_look_at(cluster: FakeCluster) -> None:
    client = connect(ClusterSettings(url=cluster.url))
    cluster.on_request = lambda _: Reply(503, error_body(503, "search_phase_execution_exception"))
    with pytest.raises(ClusterBlocked, match=r"POST /products/_count now \(503: .*_cluster/health"):
        client.count(index="products", body={})


@pytest.mark.case("I32")
def test_port_without_listener_is_unreachable() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(ClusterUnreachable, match="Connection refused"):
            connect(ClusterSettings(url=url)).info()


@pytest.mark.case("I32")
def test_plain_http_to_a_tls_port_points_at_https(tmp_path: Path) -> None:
    pem = certificate(tmp_path, names="IP:127.0.0.1")
    with fake_cluster(serving(pem)) as cluster:
        plain = cluster.url.replace("https", "http")
        with pytest.raises(ClusterUnreachable, match="use https://"):
            connect(ClusterSettings(url=plain)).info()


@pytest.mark.case("I32")
def test_tls_to_a_plain_port_points_at_http(cluster: FakeCluster) -> None:
    with pytest.raises(ClusterUnreachable, match="use http://"):
        connect(ClusterSettings(url=cluster.url.replace("http", "https"))).info()


@pytest.mark.case("I32")
@pytest.mark.parametrize(
    ("names", "days", "trusted", "message"),
    [
        pytest.param("IP:127.0.0.1", 2, False, "unknown authority", id="self-signed"),
        pytest.param("DNS:search.example", 2, True, "not for this address", id="other-host"),
        pytest.param("IP:127.0.0.1", -1, True, "has expired", id="expired"),
    ],
)
def test_each_certificate_fault_has_its_remedy(
    tmp_path: Path, names: str, days: int, trusted: bool, message: str
) -> None:
    pem = certificate(tmp_path, names=names, days=days)
    with fake_cluster(serving(pem)) as cluster:
        settings = ClusterSettings(url=cluster.url, ca_file=tmp_path / "cert.pem" if trusted else None)
        with pytest.raises(ClusterUnreachable, match=message):
            connect(settings).info()


@pytest.mark.case("I32")
def test_unverified_tls_works_and_warns_each_time(tmp_path: Path) -> None:
    pem = certificate(tmp_path, names="IP:127.0.0.1")
    with fake_cluster(serving(pem)) as cluster, capture_logs() as lines:
        settings = ClusterSettings(url=cluster.url, verify_tls=False)
        for _ in range(2):
            assert capabilities(connect(settings)).version == (3, 6, 0)
    assert [line["log_level"] for line in lines] == ["warning"] * 2


@pytest.mark.case("I7")
@pytest.mark.parametrize(
    ("reply", "message"),
    [
        pytest.param(
            Reply(200, b"<html>Please log in</html>", {"content-type": "text/html"}), "web page", id="login-page"
        ),
        pytest.param(Reply(200, b'{"version": {"num'), "not JSON", id="truncated"),
        pytest.param(Reply(200, b'{"hello": "world"}'), "not as OpenSearch", id="another-service"),
    ],
)
def test_what_is_no_opensearch_answer_is_said_so(cluster: FakeCluster, reply: Reply, message: str) -> None:
    cluster.on_request = lambda _: reply
    with pytest.raises(AnswerNotUnderstood, match=message):
        capabilities(connect(ClusterSettings(url=cluster.url)))


def test_exchange_keeps_status_headers_and_bytes(cluster: FakeCluster) -> None:
    body = b'{"n": 1.10000000000000000001}'
    cluster.on_request = lambda _: Reply(429, body, {"Retry-After": "2"})
    answer = exchange(connect(ClusterSettings(url=cluster.url)), "POST", "/x/_bulk", body=b"{}\n")
    assert (answer.status, answer.headers["retry-after"], answer.body) == (429, "2", body)


def test_a_request_is_never_repeated(cluster: FakeCluster) -> None:
    cluster.on_request = lambda _: Reply(drop=True)
    with pytest.raises(ClusterUnreachable):
        connect(ClusterSettings(url=cluster.url)).info()
    assert len(cluster.requests) == 1


def test_secrets_are_masked(cluster: FakeCluster) -> None:
    client = connect(ClusterSettings(url=cluster.url, username="ingest", password=SecretStr("s3cret")))
    assert "s3cret" not in repr(client)
    with pytest.raises(SettingsError) as refused:
        connect(ClusterSettings(url="http://ingest:s3cret@127.0.0.1:1"))
    assert "s3cret" not in str(refused.value)


@pytest.mark.case("I52")
def test_an_index_that_was_deleted_meanwhile_is_said_to_be_with_the_remedy(cluster: FakeCluster) -> None:
    client = connect(ClusterSettings(url=cluster.url))
    cluster.on_request = lambda _: Reply(404, error_body(404, "index_not_found_exception", "no such index [products]"))
    told = r"^no such index \[products\]: it was deleted meanwhile.* run the same command again$"
    for ask in (client.count, client.indices.get_mapping, client.indices.refresh):
        with pytest.raises(IndexUnsuitable, match=told) as gone:
            ask(index="products")
        assert isinstance(gone.value, NotFoundError)
    cluster.on_request = lambda _: Reply(404, error_body(404, "resource_not_found_exception"))
    with pytest.raises(NotFoundError) as missing:
        client.count(index="products")
    assert not isinstance(missing.value, IndexUnsuitable)


@pytest.mark.case("I53")
def test_an_answer_that_is_no_utf_8_is_read(cluster: FakeCluster) -> None:
    client = connect(ClusterSettings(url=cluster.url))
    cluster.on_request = lambda _: Reply(200, b'{"a":"\xc0\xaf \xed\xa0\xbd","b":1}')
    assert json.loads(exchange(client, "GET", "/_x").body) == {"a": "\ufffd\ufffd \ufffd", "b": 1}
    assert client.transport.perform_request("GET", "/_x") == {"a": "\ufffd\ufffd \ufffd", "b": 1}
    cluster.on_request = lambda _: Reply(400, b'{"error":{"type":"x","reason":"at \xff"}}')
    with pytest.raises(RequestError, match="400, 'x'"):
        client.info()

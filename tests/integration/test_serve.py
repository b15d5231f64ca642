"""`neural-bridge serve`: sidecar and proxy as real processes, on toy models and before a cluster that is away."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bridge.processes.lifecycle import answers
from tests.toys import make_toy_cross_encoder, make_toy_encoder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


def eventually(condition: Callable[[], bool], timeout_s: float = 30) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


def children(pid: int) -> dict[str, int]:
    """Process ids of the servers that a `serve` started, by name."""
    found = {}
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in tasks.read_text().split():
            command = Path(f"/proc/{child}/cmdline").read_text().split("\0")
            if len(command) > 1:  # a dead one that was not yet waited for has no command
                found[command[-2]] = int(child)
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "encoder").mkdir()
    (tmp_path / "cross").mkdir()
    settings = {
        "SIDECAR__PORT": "0",
        "SIDECAR__ENCODER": str(make_toy_encoder(tmp_path / "encoder").path),
        "SIDECAR__RERANK_MODEL": str(make_toy_cross_encoder(tmp_path / "cross").path),
        "PROXY__PORT": "0",
        "PROXY__ADMIN_PORT": "0",
        "CLUSTER__URL": "http://127.0.0.1:1",
    }
    return os.environ | {f"BRIDGE_{name}": value for name, value in settings.items()}


@pytest.fixture
def serve(environment: dict[str, str], tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (
        (tmp_path / "serve.log").open("wb") as log,
        subprocess.Popen([sys.executable, "-m", "bridge.cli", "serve"], env=environment, stderr=log) as process,
    ):
        assert eventually(lambda: b"the proxy answers on" in (tmp_path / "serve.log").read_bytes()), (
            tmp_path / "serve.log"
        ).read_text()
        yield process
        process.kill()


def proxy_url(log_file: Path) -> str:
    found = re.search(r"the proxy answers on (\S+)", log_file.read_text())
    assert found is not None
    return found[1]


def test_both_servers_end_with_their_supervisor(serve: subprocess.Popen[bytes]) -> None:
    servers = children(serve.pid)
    assert set(servers) == {"rerank", "proxy"}
    serve.send_signal(signal.SIGTERM)
    assert serve.wait(30) == 143
    assert not any(is_alive(pid) for pid in servers.values())


def test_both_servers_end_with_a_supervisor_that_is_killed(serve: subprocess.Popen[bytes]) -> None:
    servers = children(serve.pid)
    serve.kill()
    serve.wait(30)
    assert eventually(lambda: not any(is_alive(pid) for pid in servers.values()))


@pytest.mark.case("R19")
def test_server_that_crashes_comes_back_where_it_was(serve: subprocess.Popen[bytes], tmp_path: Path) -> None:
    first = children(serve.pid)["proxy"]
    url = proxy_url(tmp_path / "serve.log")
    os.kill(first, signal.SIGKILL)
    assert eventually(lambda: children(serve.pid).get("proxy", first) != first)
    # The cluster is away: the proxy's own 503 shows that it listens again.
    assert eventually(lambda: _listens(url))
    assert not answers(url)


@pytest.mark.case("R19")
def test_sidecar_that_is_killed_comes_back_where_the_proxy_asks_it(
    serve: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    def ports() -> list[str]:
        return re.findall(r'"port": (\d+), "tls": false, "models"', (tmp_path / "serve.log").read_text())

    first = children(serve.pid)["rerank"]
    os.kill(first, signal.SIGKILL)
    assert eventually(lambda: len(ports()) == 2), (tmp_path / "serve.log").read_text()
    assert len(set(ports())) == 1
    assert children(serve.pid)["rerank"] != first


def test_model_that_is_missing_ends_both_with_the_reason(environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bridge.cli", "serve"],
        env=environment | {"BRIDGE_SIDECAR__RERANK_MODEL": "no-such-model"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "no-such-model" in done.stderr
    assert "rerank ended with exit status 1" in done.stderr


def _listens(url: str) -> bool:
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 0), timeout=2).close()
    except OSError:
        return False
    return True

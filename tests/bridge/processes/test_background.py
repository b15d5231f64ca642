"""A real process in the background: found while it lives, never mistaken for another, stopped."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.errors import ServiceError, UsageError
from bridge.processes.background import Background, Stack
from bridge.processes.lifecycle import answers
from tests.bridge.processes.test_supervisor import SERVER, eventually

STACK = Stack("http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3")


@pytest.fixture
def background(tmp_path: Path) -> Iterator[Background]:
    server = Background(tmp_path / "state.json")
    yield server
    server.stop(5)


def start(background: Background, tmp_path: Path, port: int, behaviour: str = "serves") -> None:
    background.start(
        [sys.executable, "-c", SERVER, str(port), behaviour],
        STACK,
        environment={},
        ready_urls=[f"http://127.0.0.1:{port}/"],
        timeout_s=20,
        log_file=tmp_path / "serve.log",
    )


def test_server_is_found_until_it_is_stopped(background: Background, tmp_path: Path, unused_tcp_port: int) -> None:
    assert background.find() is None
    start(background, tmp_path, unused_tcp_port)
    assert Background(tmp_path / "state.json").find() == STACK
    assert background.stop(10) is True
    assert background.find() is None
    assert not answers(f"http://127.0.0.1:{unused_tcp_port}/")
    assert background.stop(10) is False


def test_second_server_is_refused(background: Background, tmp_path: Path, unused_tcp_port: int) -> None:
    start(background, tmp_path, unused_tcp_port)
    with pytest.raises(UsageError, match="runs already"):
        start(background, tmp_path, unused_tcp_port)
    assert background.find() == STACK


def test_server_that_was_killed_is_not_found(background: Background, tmp_path: Path, unused_tcp_port: int) -> None:
    start(background, tmp_path, unused_tcp_port)
    os.kill(json.loads((tmp_path / "state.json").read_text())["pid"], signal.SIGKILL)
    assert eventually(lambda: background.find() is None)


def test_process_that_took_over_the_id_is_left_alone(background: Background, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(json.dumps({"pid": os.getpid(), "stack": {"node_url": "", "proxy_url": ""}}))
    assert background.stop(1) is False


def test_server_that_ends_at_once_is_an_error(background: Background, tmp_path: Path, unused_tcp_port: int) -> None:
    with pytest.raises(ServiceError, match=r"serve\.log says why"):
        start(background, tmp_path, unused_tcp_port, "dies")
    assert "no such model" in (tmp_path / "serve.log").read_text()
    assert background.find() is None

"""What an instance's folder remembers of its process, and how its node is told from other processes."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread, Timer

import pytest

from bridge.errors import NodeError
from bridge.node import process as node_process
from bridge.node.process import STATE_FILE, NodeProcess, configuration_folder

Start = Callable[[str], NodeProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a toy node: a Python program whose command line names the instance's configuration."""
    started: list[subprocess.Popen[bytes]] = []

    def start_program(program: str) -> NodeProcess:
        command = [sys.executable, "-c", program, str(configuration_folder(tmp_path))]
        toy = subprocess.Popen(command, stdout=subprocess.PIPE)
        started.append(toy)
        assert toy.stdout is not None
        toy.stdout.readline()
        return NodeProcess(tmp_path, toy.pid, "3.6.0")

    yield start_program
    for toy in started:
        toy.kill()
        toy.communicate()


SLEEPING = "import time; print(flush=True); time.sleep(60)"
ENDED = "print(flush=True)"


class ToyNode(BaseHTTPRequestHandler):
    """Answers the question for the cluster's health with the server's `status`."""

    def do_GET(self) -> None:
        assert isinstance(self.server, ToyServer)
        self.server.asked.append(self.path)
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Keeps the test's output clean."""


class ToyServer(HTTPServer):
    status = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), ToyNode)
        self.asked: list[str] = []


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[ToyServer]:
    """A server that the instance's folder names as its node's address."""
    with ToyServer() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        (tmp_path / "logs").mkdir()
        (tmp_path / "logs" / "http.ports").write_text(f"127.0.0.1:{server.server_port}\n")
        yield server
        server.shutdown()
        thread.join()


def test_what_was_written_is_read(tmp_path: Path) -> None:
    process = NodeProcess(tmp_path, 123, "3.6.0")
    process.write()

    assert NodeProcess.read(tmp_path) == process
    assert [file.name for file in tmp_path.iterdir()] == [STATE_FILE]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"pid": "x", "version": "3"}', "null"])
def test_a_damaged_state_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / STATE_FILE).write_text(text)

    assert NodeProcess.read(tmp_path) is None


def test_a_node_lives_while_its_process_does(start: Start) -> None:
    process = start(SLEEPING)

    assert process.is_alive()
    assert process.end()
    assert not process.is_alive()
    assert not process.end()


def test_another_process_under_the_old_id_is_neither_alive_nor_ended(tmp_path: Path) -> None:
    process = NodeProcess(tmp_path, os.getpid(), "3.6.0")

    assert not process.is_alive()
    assert not process.end()


def test_a_zombie_is_not_alive(start: Start) -> None:
    process = start(ENDED)
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)

    assert not process.is_alive()


def test_a_process_whose_program_is_just_being_replaced_is_waited_for(tmp_path: Path) -> None:
    process = tmp_path / "7"
    process.mkdir()
    (tmp_path / "self").touch()
    (process / "stat").write_text("7 (java) R 1 1")
    (process / "cmdline").touch()
    program = Timer(0.2, (process / "cmdline").write_bytes, [b"java\0-Xmx1g"])
    program.start()

    assert node_process._command_line(7, tmp_path) == "java -Xmx1g"
    program.join()


@pytest.mark.parametrize(("state", "waits_s"), [("Z", 0.0), ("S", 0.3)])
def test_a_process_that_never_has_a_command_is_not_waited_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, waits_s: float
) -> None:
    monkeypatch.setattr(node_process, "EXEC_PATIENCE_S", 0.3)
    process = tmp_path / "7"
    process.mkdir()
    (tmp_path / "self").touch()
    (process / "stat").write_text(f"7 (kthreadd) {state} 1 1")
    (process / "cmdline").touch()
    started = time.monotonic()

    assert node_process._command_line(7, tmp_path) == ""
    assert time.monotonic() - started >= waits_s


def test_the_node_is_asked_at_the_port_that_it_wrote_down(start: Start, answering: ToyServer) -> None:
    assert start(SLEEPING).wait_until_ready(timeout_s=5) == f"http://127.0.0.1:{answering.server_port}"
    # Both limits: without them one poll may last half a minute.
    assert "timeout=1s" in answering.asked[0]
    assert "cluster_manager_timeout=1s" in answering.asked[0]


@pytest.mark.parametrize("status", [408, 500, 503])
def test_a_node_that_is_not_ready_yet_is_waited_for_and_then_reported(
    start: Start, answering: ToyServer, status: int
) -> None:
    answering.status = status

    with pytest.raises(NodeError, match=r"not ready in 0\.5 s; .*START_TIMEOUT_S; its log .*node\.log ends"):
        start(SLEEPING).wait_until_ready(timeout_s=0.5)
    assert len(answering.asked) > 1


def test_a_node_that_ends_while_it_starts_is_reported_with_its_last_words(start: Start, tmp_path: Path) -> None:
    process = start(ENDED)
    (tmp_path / "logs").mkdir()
    frames = "".join(f"\tat org.opensearch.Frame{number}\n" for number in range(40))
    process.log_file.write_text(f"started\nERROR disk full\n{frames}")

    with pytest.raises(NodeError) as caught:
        process.wait_until_ready(timeout_s=30)

    assert str(caught.value).splitlines()[1:] == ["started", "ERROR disk full"]
    assert str(process.log_file) in str(caught.value)


@pytest.mark.case("N1")
@pytest.mark.parametrize(
    "line",
    [
        "java.lang.UnsatisfiedLinkError: no opensearchknn_faiss in java.library.path: /usr/lib",
        "java.lang.NoClassDefFoundError: Could not initialize class org.opensearch.knn.jni.FaissService",
    ],
)
def test_a_node_that_lacks_an_index_engine_names_cause_and_remedy(start: Start, tmp_path: Path, line: str) -> None:
    process = start(ENDED)
    (tmp_path / "logs").mkdir()
    process.log_file.write_text(f"fatal error in thread\n{line}\n")

    with pytest.raises(NodeError, match=r"faiss or nmslib.*neural-bridge node clean --name .*\"engine\": \"lucene\""):
        process.wait_until_ready(timeout_s=30)

"""Real child processes: ready, crashed and restarted, stopped, and none left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bridge.errors import ServiceError
from bridge.processes.lifecycle import answers
from bridge.processes.supervisor import Service, Supervisor

pytestmark = pytest.mark.slow

SERVER = """
import http.server, os, signal, sys
port, behaviour = int(sys.argv[1]), sys.argv[2]
print("behaviour", behaviour, flush=True)
if behaviour == "dies":
    sys.exit("no such model")
if behaviour == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/crash":
            os._exit(9)
        self.send_response(503 if behaviour == "never" else 200)
        self.end_headers()
http.server.ThreadingHTTPServer(("127.0.0.1", port), Answer).serve_forever()
"""

OWNER = """
import pathlib, sys, time
from bridge.logs import write_warnings
from bridge.processes.lifecycle import ended_by_signals
from bridge.processes.supervisor import Service, Supervisor
write_warnings()
command = [sys.executable, "-c", sys.argv[1], sys.argv[2], "serves"]
toy = Service("toy", command, f"http://127.0.0.1:{sys.argv[2]}/", log_file=pathlib.Path("/dev/null"))
with ended_by_signals(), Supervisor([toy]) as supervisor:
    print(supervisor.process_ids()["toy"], flush=True)
    time.sleep(60)
"""


def toy(port: int, behaviour: str = "serves", *, log_file: Path | None = None, timeout_s: float = 20) -> Service:
    command = [sys.executable, "-c", SERVER, str(port), behaviour]
    return Service("toy", command, f"http://127.0.0.1:{port}/", log_file=log_file, start_timeout_s=timeout_s)


def eventually(condition: Callable[[], bool], timeout_s: float = 15) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def ignore_interrupts() -> None:
    """As a process is started by `nohup … &` or cron: what follows must not depend on it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.fixture
def port(unused_tcp_port: int) -> int:
    return unused_tcp_port


def test_service_is_ready_inside_the_block_and_gone_after_it(port: int) -> None:
    with Supervisor([toy(port)]) as supervisor:
        pid = supervisor.process_ids()["toy"]
        assert pid is not None
        assert answers(f"http://127.0.0.1:{port}/")
        assert os.getpgid(pid) != os.getpgid(0)  # Ctrl-C must not reach it
    assert not is_alive(pid)
    assert not answers(f"http://127.0.0.1:{port}/")


def test_crashed_service_is_started_again(port: int) -> None:
    with Supervisor([toy(port)]) as supervisor:
        first = supervisor.process_ids()["toy"]
        answers(f"http://127.0.0.1:{port}/crash")
        assert eventually(lambda: supervisor.process_ids()["toy"] not in (first, None))
        assert eventually(lambda: answers(f"http://127.0.0.1:{port}/"))


def test_service_in_a_crash_loop_is_started_with_growing_delays(port: int) -> None:
    def delays() -> list[float]:
        return [line["delay_s"] for line in lines if "delay_s" in line]

    def crash() -> bool:
        answers(f"http://127.0.0.1:{port}/crash")
        return len(delays()) >= 4

    with capture_logs() as lines, Supervisor([toy(port)]):
        assert eventually(crash, timeout_s=200)
    assert delays()[:4] == [0.0, 0.5, 1.0, 2.0]


def test_service_that_dies_while_starting_is_an_error_with_its_last_words(port: int, tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match=r"exit status 1, before it was ready[\s\S]*no such model"):
        Supervisor([toy(port, "dies", log_file=tmp_path / "toy.log")]).__enter__()


def test_command_that_does_not_exist_is_an_error_that_names_it(port: int, tmp_path: Path) -> None:
    service = Service("toy", ["no-such-command"], f"http://127.0.0.1:{port}/", log_file=tmp_path / "toy.log")
    with pytest.raises(ServiceError, match="no-such-command cannot be run"):
        Supervisor([service]).__enter__()


def test_service_that_is_never_ready_is_stopped_and_told(port: int, tmp_path: Path) -> None:
    supervisor = Supervisor([toy(port, "never", log_file=tmp_path / "toy.log", timeout_s=1)])
    with pytest.raises(ServiceError, match="did not answer"):
        supervisor.__enter__()
    assert supervisor.process_ids() == {"toy": None}


def test_other_services_stop_when_one_cannot_start(unused_tcp_port_factory: Callable[[], int], tmp_path: Path) -> None:
    good, bad = toy(unused_tcp_port_factory()), toy(unused_tcp_port_factory(), "dies", log_file=tmp_path / "log")
    supervisor = Supervisor([good, bad])
    with pytest.raises(ServiceError):
        supervisor.__enter__()
    assert not answers(good.ready_url)


def test_service_that_ignores_the_polite_signal_is_killed(port: int) -> None:
    with Supervisor([toy(port, "stubborn")], stop_timeout_s=0.5) as supervisor:
        pid = supervisor.process_ids()["toy"]
    assert pid is not None
    assert not is_alive(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_service_does_not_outlive_its_owner(port: int, kind: signal.Signals) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, SERVER, str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=ignore_interrupts,
    )
    with owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert is_alive(pid)
        owner.send_signal(kind)
        owner.wait(20)
    assert eventually(lambda: not is_alive(pid))

"""The first signal asks a run to stop, the second one ends the process."""

import os
import signal
import subprocess
import sys

import pytest

from ingest.signals import StopRequest, stop_on_signals

pytestmark = pytest.mark.usefixtures("hangups_count")

PROGRAM = """
import os, signal
from ingest.signals import stop_on_signals
with stop_on_signals() as request:
    os.kill(os.getpid(), signal.SIGTERM)
    assert request.stopped.is_set() and request.exit_code == 143
    print("asked", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    print("still here", flush=True)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_asks_the_run_to_stop_and_is_seen_in_the_exit_code(number: signal.Signals, code: int) -> None:
    before = signal.getsignal(number)
    with stop_on_signals() as request:
        assert not request.stopped.is_set()
        os.kill(os.getpid(), number)
        assert request.stopped.is_set()
    assert request.exit_code == code
    assert signal.getsignal(number) == before


def test_a_second_signal_ends_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("asked\n", -signal.SIGTERM)


@pytest.mark.case("I54")
@pytest.mark.parametrize(("nohup", "end"), [(False, "asked"), (True, "goes on")])
def test_a_terminal_that_is_closed_stops_a_run_unless_it_was_started_by_nohup(nohup: bool, end: str) -> None:
    program = """
import os, signal, sys
from ingest.signals import stop_on_signals
signal.signal(signal.SIGHUP, signal.SIG_IGN if sys.argv[1] == "True" else signal.SIG_DFL)
with stop_on_signals() as request:
    os.kill(os.getpid(), signal.SIGHUP)
    print("asked" if request.stopped.is_set() else "goes on")
"""
    command = [sys.executable, "-c", program, str(nohup)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"{end}\n"


def test_parts_stop_with_the_whole_and_alone() -> None:
    whole = StopRequest()
    early = whole.part()
    early.ask(signal.SIGTERM)
    assert not whole.stopped.is_set()
    whole.ask(signal.SIGINT)
    assert whole.part().number == signal.SIGINT


def test_only_a_run_that_stopped_itself_may_resume() -> None:
    request = StopRequest()
    request.stopped.set()
    assert request.resume()
    assert not request.stopped.is_set()
    request.ask(signal.SIGTERM)
    assert not request.resume()
    assert request.stopped.is_set()

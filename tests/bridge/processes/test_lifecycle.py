"""How processes are probed and ended, and how this one is ended by signals."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bridge.processes.lifecycle import answers, end_process, ended_by_signals, last_words, start_log_afresh
from tests.bridge.proxy.scripted_models import scripted_models

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
POLITE = "import time; print(flush=True); time.sleep(60)"


@pytest.mark.parametrize(("program", "ends_by"), [(POLITE, signal.SIGTERM), (STUBBORN, signal.SIGKILL)])
def test_a_process_is_asked_to_end_and_then_killed(program: str, ends_by: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert end_process(process.pid, lambda: process.poll() is None, grace_s=2.0)
        assert process.returncode == -ends_by


def test_a_process_that_is_gone_has_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert end_process(process.pid, lambda: True, grace_s=0.0)


async def test_only_the_wanted_statuses_count_as_an_answer() -> None:
    async with scripted_models() as models:
        url = f"{models.url}/no/such/path?deep=1"
        assert not await asyncio.to_thread(answers, url)
        assert await asyncio.to_thread(answers, url, statuses=[405])
    assert not answers("http://127.0.0.1:9/")


def test_the_last_words_leave_stack_frames_out(tmp_path: Path) -> None:
    log = tmp_path / "node.log"
    log.write_text("\n".join([*map(str, range(20)), "ERROR no space", "\tat a.b.C", "\t... 9 more"]))
    lines = last_words(log).splitlines()
    assert lines[0] == f"its log {log} ends:"
    assert lines[1:] == [*map(str, range(6, 20)), "ERROR no space"]
    assert last_words(tmp_path / "none") == f"its log {tmp_path / 'none'} ends:"


def test_a_log_of_the_time_before_is_moved(tmp_path: Path) -> None:
    log = tmp_path / "serve.log"
    start_log_afresh(log)
    log.write_text("old")
    start_log_afresh(log)
    assert [path.name for path in tmp_path.iterdir()] == ["serve.log.1"]


@ended_by_signals()
def _interrupt_within() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)


def test_an_ignored_interrupt_leaves_the_block_all_the_same() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(KeyboardInterrupt):
            _interrupt_within()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_signal_leaves_the_block_and_releases_what_it_holds() -> None:
    released = []
    before = signal.getsignal(signal.SIGTERM)

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # an impatient second one
            released.append("held")

    with pytest.raises(SystemExit) as left, ended_by_signals():
        work()
    assert left.value.code == 143
    assert released == ["held"]
    assert signal.getsignal(signal.SIGTERM) == before

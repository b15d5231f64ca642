"""Whether a server answers, how a process is ended, what it said last, and how signals end this one."""

import http.client
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn
from urllib.parse import urlsplit

POLL_S = 0.2
PROBE_TIMEOUT_S = 2.0
SHOWN_LOG_LINES = 15


def answers(url: str, *, statuses: Collection[int] = (http.client.OK,), timeout_s: float = PROBE_TIMEOUT_S) -> bool:
    """Whether a plain-HTTP address answers now, with one of `statuses`.

    The standard library's client is used since it follows no proxy settings of the environment.
    """
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=timeout_s)
    try:
        connection.request("GET", f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/")
        return connection.getresponse().status in statuses
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def end_process(pid: int, is_alive: Callable[[], bool], *, grace_s: float) -> bool:
    """SIGTERM, and SIGKILL after the grace; returns whether the process ended.

    Raises:
        PermissionError: it belongs to another user.
    """
    for kind in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(pid, kind)
        except ProcessLookupError:
            return True
        deadline = time.monotonic() + grace_s
        while time.monotonic() < deadline:
            if not is_alive():
                return True
            time.sleep(POLL_S)
    return False


def last_words(log_file: Path) -> str:
    """The end of a log without the frames of Java's stack traces, for an error message."""
    try:
        lines = log_file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    telling = [line for line in lines if not line.startswith(("\tat ", "\t... "))]
    return "\n".join([f"its log {log_file} ends:", *telling[-SHOWN_LOG_LINES:]])


def start_log_afresh(file: Path) -> None:
    """Moves the log of the time before to `NAME.log.1`."""
    if file.exists():
        shutil.move(file, f"{file}.1")


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP leave the block like Ctrl-C does, so that what it holds is released; the exit
    code is the shell's for that signal (143, 129). While the block is left, more of them change nothing.

    Ctrl-C (SIGINT) leaves it too, even if this process was started with that signal ignored (`nohup … &`, cron).
    For the main thread.
    """
    kinds = (signal.SIGTERM, signal.SIGHUP)

    def leave(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 the signal module's shape
        for kind in kinds:
            signal.signal(kind, signal.SIG_IGN)
        sys.exit(128 + number)

    before = {kind: signal.signal(kind, leave) for kind in kinds}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)

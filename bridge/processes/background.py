"""A server that goes on without us, and can be found and stopped later.

It inherits a locked state file, so the lock lasts exactly as long as its life: no other process with the same id is
mistaken for it.
"""

import fcntl
import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from bridge.errors import ServiceError, UsageError
from bridge.processes.lifecycle import POLL_S, answers, end_process, start_log_afresh


@dataclass(frozen=True, slots=True)
class Stack:
    """Addresses of a running stack."""

    node_url: str
    proxy_url: str
    sidecar_url: str


class Background:
    """At most one server per state file."""

    def __init__(self, state_file: Path) -> None:
        self._file = state_file
        self._process: subprocess.Popen[bytes] | None = None

    def find(self) -> Stack | None:
        """The addresses of the server; None if it does not run."""
        with self._opened() as file:
            return None if _try_lock(file) else Stack(**json.load(file)["stack"])

    def start(
        self,
        command: Sequence[str],
        stack: Stack,
        *,
        environment: Mapping[str, str],
        ready_urls: Sequence[str],
        timeout_s: float,
        log_file: Path,
    ) -> None:
        """Starts the server and waits until all of `ready_urls` answer 200.

        Raises:
            ServiceError: it ended, or was not ready in time; it is stopped then.
            UsageError: it runs already.
        """
        start_log_afresh(log_file)
        with self._opened() as file, log_file.open("ab") as output:
            if not _try_lock(file):
                raise UsageError(f"{self._file} belongs to a server that runs already: stop it first")
            self._process = process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
                pass_fds=[file.fileno()],
            )
            file.truncate(0)
            json.dump({"pid": process.pid, "stack": asdict(stack)}, file)
        try:
            self._wait_until_ready(process, ready_urls, timeout_s, log_file)
        except BaseException:
            process.terminate()
            process.wait()
            raise

    def stop(self, timeout_s: float) -> bool:
        """SIGTERM, after a grace SIGKILL; returns whether it ran.

        Raises:
            ServiceError: it does not end.
        """
        with self._opened() as file:
            running = not _try_lock(file)
            if running:
                pid = json.load(file)["pid"]
                if not end_process(pid, lambda: not _try_lock(file), grace_s=timeout_s):
                    raise ServiceError(f"process {pid} of {self._file} does not end: see what holds it")
        if self._process is not None:
            self._process.wait()  # our own child stays a zombie until somebody asks
        return running

    @staticmethod
    def _wait_until_ready(
        process: subprocess.Popen[bytes], urls: Sequence[str], timeout_s: float, log_file: Path
    ) -> None:
        deadline = time.monotonic() + timeout_s
        while not all(answers(url) for url in urls):
            if process.poll() is not None or time.monotonic() > deadline:
                raise ServiceError(f"the server in the background did not become ready: {log_file} says why")
            time.sleep(POLL_S)

    def _opened(self) -> TextIO:
        self._file.touch()
        return self._file.open("r+", encoding="utf-8")


def _try_lock(file: TextIO) -> bool:
    """Locks an open file, unless somebody else has it locked."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

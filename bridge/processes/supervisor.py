"""Keeps servers running as child processes: started, known to be ready, restarted when they crash, stopped.

    with Supervisor([Service("sidecar", command, "http://127.0.0.1:9290/ready")]):
        ...  # the sidecar answers

No child outlives the block, nor this process, however it ends (`owned` says how).
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from bridge.errors import ServiceError
from bridge.processes import owned
from bridge.processes.lifecycle import answers, last_words

log = structlog.get_logger(__name__)

POLL_S = 0.1
FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
STEADY_S = 60.0
"""A process that ran for so long is not in a crash loop: the next delay is the first one again."""


@dataclass(frozen=True, slots=True)
class Service:
    """A server to keep running.

    `ready_url` answers 200 once it can serve. `environment` is added to ours. Output goes to `log_file`,
    appended, or to our own output.
    """

    name: str
    command: Sequence[str]
    ready_url: str
    environment: Mapping[str, str] = field(default_factory=dict)
    log_file: Path | None = None
    start_timeout_s: float = 60.0


class Supervisor:
    """Runs services for the length of a `with` block, which is entered when all are ready.

    A service that ends before it was ever ready cannot be helped by another start: that is an error. One
    that crashes later is started again, at once at first, then after growing delays.
    """

    def __init__(self, services: Sequence[Service], *, stop_timeout_s: float = 25.0) -> None:
        self._keepers = [_Keeper(service, stop_timeout_s) for service in services]
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Starts all services together and waits for each.

        Raises:
            ServiceError: one ended or was not ready in time; the others are stopped.
        """
        with ExitStack() as stack:
            # Asked all at once, they stop together and not one after the other.
            for keeper in self._keepers:
                stack.callback(keeper.join)
            for keeper in self._keepers:
                stack.callback(keeper.ask_to_stop)
                keeper.start()
            for keeper in self._keepers:
                keeper.wait_until_ready()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def process_ids(self) -> dict[str, int | None]:
        """The process id of each service by name; None between two starts."""
        return {keeper.service.name: keeper.process_id for keeper in self._keepers}

    def hang_up(self) -> None:
        """Sends SIGHUP to each service: what reads its files again at that does so."""
        for process_id in self.process_ids().values():
            if process_id is not None:
                with suppress(ProcessLookupError):
                    os.kill(process_id, signal.SIGHUP)


class _Keeper:
    """Starts one service again and again, in a thread of its own."""

    def __init__(self, service: Service, stop_timeout_s: float) -> None:
        self.service = service
        self._stop_timeout_s = stop_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = ""
        self._was_ready = threading.Event()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        # The kernel ends the process with the thread that started it: this one lives as long as it does.
        self._thread = threading.Thread(target=self._keep, name=f"keep-{service.name}", daemon=True)

    @property
    def _last_words(self) -> str:
        file = self.service.log_file
        return last_words(file) if file is not None else "its output says why"

    @property
    def process_id(self) -> int | None:
        """Of the process that runs now."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Starts the thread, and with it the service."""
        self._thread.start()

    def wait_until_ready(self) -> None:
        """Returns when the service answers 200 for the first time.

        Raises:
            ServiceError: it ended before, or did not answer in time.
        """
        service, started = self.service, time.monotonic()
        while not answers(service.ready_url):
            if not self._thread.is_alive():
                raise ServiceError(f"{service.name} ended {self._ended}, before it was ready; {self._last_words}")
            if time.monotonic() - started > service.start_timeout_s:
                raise ServiceError(
                    f"{service.name} did not answer {service.ready_url} with 200 in {service.start_timeout_s:g} s: "
                    f"see what it waits for; {self._last_words}"
                )
            time.sleep(POLL_S)
        self._was_ready.set()
        log.info("service ready", service=service.name, took_s=round(time.monotonic() - started, 2))

    def ask_to_stop(self) -> None:
        """SIGTERM; returns at once."""
        self._stopping.set()
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._process.terminate()

    def join(self) -> None:
        """Waits for the end that was asked for; after the grace, SIGKILL."""
        if not self._thread.ident:
            return
        self._thread.join(self._stop_timeout_s)
        if self._thread.is_alive() and self._process is not None:
            log.warning("service killed: it did not stop in time", service=self.service.name)
            self._process.kill()
            self._thread.join()

    def _keep(self) -> None:
        delay_s = 0.0
        while not self._stopping.is_set():
            started = time.monotonic()
            self._ended = self._run_once()
            if self._stopping.is_set() or not self._was_ready.is_set():
                return
            if time.monotonic() - started > STEADY_S:
                delay_s = 0.0
            log.warning("service ended: it starts again", service=self.service.name, how=self._ended, delay_s=delay_s)
            self._stopping.wait(delay_s)
            delay_s = min(max(FIRST_DELAY_S, delay_s * 2), LONGEST_DELAY_S)

    def _run_once(self) -> str:
        """Starts the process, unless the end was asked for, and waits until it ends; says how it ended."""
        try:
            with self._lock:
                if self._stopping.is_set():
                    return "before it started"
                self._process = self._spawn()
        except OSError as error:
            return f"with no process: {error}"
        return f"with exit status {self._process.wait()}"

    def _spawn(self) -> subprocess.Popen[bytes]:
        file = self.service.log_file
        with ExitStack() as stack:
            output = stack.enter_context(file.open("ab")) if file else None
            return subprocess.Popen(
                [sys.executable, "-P", owned.__file__, str(os.getpid()), *self.service.command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
                env={**os.environ, **self.service.environment},
                process_group=0,  # Ctrl-C at a terminal reaches us alone: we stop the services in order
            )

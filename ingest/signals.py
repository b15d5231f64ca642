"""SIGINT, SIGTERM and SIGHUP ask a run to stop; a second one does not ask."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """`stopped` is set once a signal came; `number` says which."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self.number: int | None = None
        self._parts: list[StopRequest] = []

    def ask(self, number: int) -> None:
        """Asks the run, and its parts, to stop as this signal would."""
        self.number = number
        self.stopped.set()
        for part in self._parts:
            part.ask(number)

    def part(self) -> "StopRequest":
        """A request for one of several runs: it comes with this one, and may come alone."""
        part = StopRequest()
        self._parts.append(part)
        if self.number is not None:
            part.ask(self.number)
        return part

    def resume(self) -> bool:
        """Takes back a stop that a failing run asked for by itself; False where a signal asked for one."""
        if self.number is None:
            self.stopped.clear()
        return self.number is None

    @property
    def exit_code(self) -> int:
        """What shells expect of a program that a signal ended: 129, 130 or 143."""
        return 128 + (self.number or 0)


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turns the first SIGINT, SIGTERM or SIGHUP into a request; from the main thread only. SIGHUP stays ignored where
    it is, as nohup wants it."""
    request = StopRequest()

    def note(number: int, _frame: FrameType | None) -> None:
        request.ask(number)
        for kind, handler in before.items():
            signal.signal(kind, handler)

    before = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    if before[signal.SIGHUP] == signal.SIG_IGN:
        del before[signal.SIGHUP]
    for kind in before:
        signal.signal(kind, note)
    try:
        yield request
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)

"""A TCP proxy that spoils connections: the network between a client and a real node, on its worse days."""

import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

Kind = Literal["cut", "reset", "stall"]
Way = Literal["request", "answer"]

KINDS: tuple[Kind, ...] = ("cut", "reset", "stall")
"""cut: both ends are told that it is over (FIN). reset: they are told that it went wrong (RST). stall: nothing goes
on, until the client loses patience."""

_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with a time of 0: closing sends RST."""


@dataclass(frozen=True)
class Fault:
    """What happens to a connection once so many bytes have gone this way."""

    kind: Kind
    way: Way
    after_bytes: int


class TcpFaults:
    """Lets everything through until it is armed; then each connection meets a fault, until there are none left."""

    def __init__(self, upstream: tuple[str, int], faults: list[Fault]) -> None:
        self._upstream = upstream
        self._left = list(faults)
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self.armed = threading.Event()
        self.done: Counter[tuple[Kind, Way]] = Counter()
        """Faults that happened."""
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def serve(self) -> None:
        """Accepts connections until it is closed."""
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                node = socket.create_connection(self._upstream)
                self._open |= {client, node}
                connection = _Connection(self, client, node)
                for way in ("request", "answer"):
                    threading.Thread(target=connection.pump, args=(way,), daemon=True).start()

    def close(self) -> None:
        """Ends it, with whatever is open."""
        for each in (self._listener, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def draw(self) -> Fault | None:
        """The next fault, once armed."""
        with self._lock:
            return self._left.pop(0) if self.armed.is_set() and self._left else None

    def note(self, fault: Fault) -> None:
        """A fault happened."""
        with self._lock:
            self.done[fault.kind, fault.way] += 1


class _Connection:
    """One client's connection, and the node's that belongs to it."""

    def __init__(self, faults: TcpFaults, client: socket.socket, node: socket.socket) -> None:
        self._faults = faults
        self._ends = {"request": (client, node), "answer": (node, client)}
        self._client, self._node = client, node
        self._fault: Fault | None = None
        self._was_reset = False
        self._drawing = threading.Lock()

    def pump(self, way: Way) -> None:
        """Passes bytes on, one way, until the fault or the end."""
        source, target = self._ends[way]
        passed = 0
        with suppress(OSError):
            while content := source.recv(65536):
                fault = self._drawn()
                if fault is not None and fault.way == way:
                    if passed + len(content) > fault.after_bytes:
                        target.sendall(content[: fault.after_bytes - passed])
                        self._happen(fault)
                        return
                    passed += len(content)
                target.sendall(content)
        self._end()

    def _drawn(self) -> Fault | None:
        with self._drawing:
            if self._fault is None:
                self._fault = self._faults.draw()
            return self._fault

    def _happen(self, fault: Fault) -> None:
        self._faults.note(fault)
        if fault.kind == "stall":
            if fault.way == "answer":
                return  # The other way ends when the client does.
            with suppress(OSError):
                while self._client.recv(65536):
                    pass
        if fault.kind == "reset":
            self._was_reset = True
            for end in (self._client, self._node):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                # The other way still waits on it, and no RST goes out before it lets go.
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RD)
                end.close()
        self._end()

    def _end(self) -> None:
        if self._was_reset:
            return
        for end in (self._client, self._node):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextmanager
def tcp_faults(url: str, faults: list[Fault]) -> Iterator[TcpFaults]:
    """A proxy before the server at `url`; it ends with the block."""
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    proxy = TcpFaults((parts.hostname, parts.port), faults)
    accepting = threading.Thread(target=proxy.serve)
    accepting.start()
    try:
        yield proxy
    finally:
        proxy.close()
        accepting.join()


def random_faults(seed: int, *, resets_and_cuts: int, stalls: int, up_to_bytes: int) -> list[Fault]:
    """Faults in an order and at moments by chance, both ways."""
    chosen = random.Random(seed)
    broken: list[Kind] = [chosen.choice(KINDS[:2]) for _ in range(resets_and_cuts)]
    stalled: list[Kind] = ["stall"] * stalls
    kinds = broken + stalled
    chosen.shuffle(kinds)
    ways: tuple[Way, Way] = ("request", "answer")
    return [Fault(kind, chosen.choice(ways), chosen.randrange(up_to_bytes)) for kind in kinds]

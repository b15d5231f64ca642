"""The sidecar as a process of its own, on a free port of loopback."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

START_TIMEOUT_S = 120.0


class Process(NamedTuple):
    """A sidecar that runs, its address, and the file with its log."""

    popen: "subprocess.Popen[bytes]"
    url: str
    log: Path


@contextmanager
def started(log: Path, **settings: object) -> Iterator["subprocess.Popen[bytes]"]:
    """The process, its stderr in `log`: a pipe that nobody reads would fill up and stop it."""
    environment = {f"BRIDGE_SIDECAR__{name.upper()}": str(value) for name, value in settings.items()}
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "rerank_server"],
            env={**os.environ, "BRIDGE_SIDECAR__PORT": "0", **environment},
            stderr=errors,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def listening(log: Path, **settings: object) -> Iterator[Process]:
    """The process once it listens."""
    with started(log, **settings) as process:
        scheme = "https" if "tls_certificate_file" in settings else "http"
        found = until_logged(process, log, r'"port": (\d+)')
        yield Process(process, f"{scheme}://127.0.0.1:{found[1]}", log)


def until_logged(process: "subprocess.Popen[bytes]", log: Path, pattern: str) -> re.Match[str]:
    """Waits for a line of the log."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not (found := re.search(pattern, log.read_text())):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    return found

"""Commands of the bridge as processes that can be killed, and that start at once.

Importing everything takes a command a second or two. So one process imports it, and each command is a fork of that:
the real command line with its own arguments, environment and memory, and dead when it is killed.
"""

import multiprocessing
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import bridge.cli
import bridge.commands.backfill
import bridge.commands.follow
import bridge.commands.generation
import bridge.commands.ingest
import bridge.console
import bridge.model_servers.client
import bridge.models.encoder
import ingest.follow.indices
import ingest.follow.metrics
import ingest.runs.backfill
import ingest.runs.beside
import ingest.runs.ingest
import ingest.runs.query_filter
import ingest.runs.verify
import ingest.runs.way
import ingest.sources.files
import ingest.stages.models  # noqa: F401 commands import all of this when they run

KILLED = -9
LOG_SHOWN = 3000
"""Characters of a command's output in a finding."""


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, `KILLED` if it was killed, and what it said."""

    code: int
    took_s: float
    said: str


class Commands:
    """Starts commands with an environment, one at a time."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        """Returns once everything is imported."""
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__])
        self._environment = dict(environment)
        self._log = folder / "command.log"
        self._log.touch()
        self.run(["--version"])

    def start(self, arguments: Sequence[str]) -> ForkServerProcess:
        """A command under way."""
        process = self._context.Process(target=_command, args=(list(arguments), self._environment, str(self._log)))
        process.start()
        return process

    def run(self, arguments: Sequence[str], *, kill_after_s: float | None = None, limit_s: float = 600.0) -> Ended:
        """Waits for a command's end; kills it after so many seconds, if it still runs then.

        Raises:
            TimeoutError: it did not end within the limit.
        """
        began = time.monotonic()
        process = self.start(arguments)
        process.join(limit_s if kill_after_s is None else kill_after_s)
        if process.is_alive():
            process.kill()
            process.join()
            if kill_after_s is None:
                raise TimeoutError(f"{' '.join(arguments)} did not end within {limit_s:.0f} s")
        code = process.exitcode
        assert code is not None
        return Ended(code, time.monotonic() - began, self._log.read_text("utf-8", errors="replace")[-LOG_SHOWN:])


def _command(arguments: list[str], environment: dict[str, str], log: str) -> None:
    os.environ.update(environment)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for stream in (1, 2):
        os.dup2(out, stream)
    bridge.cli.main(arguments)

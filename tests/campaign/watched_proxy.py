"""The proxy's process with a watch on its event loop: `python -m tests.campaign.watched_proxy FILE serve proxy …`.

A beat comes round on the loop every few milliseconds. What the loop's thread computed between two beats is a stretch
in which nothing else was served. Stretches are measured in processor time, which other processes of a busy machine do
not lengthen, and by the clock beside it. FILE gets a line of JSON for each long one, with the innermost calls that a
second thread saw while it lasted.
"""

import asyncio
import functools
import gc
import json
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TextIO

import uvloop

from bridge.cli import main as bridge_main

BEAT_S = 0.002
NOTED_S = 0.010
"""Shorter stretches are not written down."""
INNERMOST = 6
"""Calls of a stack that are noted."""


class Watch:
    """Notes how long the loop is held; `stack` is what its thread last did while a beat was overdue."""

    def __init__(self, loop: asyncio.AbstractEventLoop, log: TextIO) -> None:
        self._loop = loop
        self._log = log
        self._thread = threading.get_ident()
        self._clock = time.monotonic()
        self._computed = time.thread_time()
        self._stack: list[str] = []
        self._collecting = self._collected_s = 0.0
        gc.callbacks.append(self._collect)
        loop.call_later(BEAT_S, self._beat)
        threading.Thread(target=self._look, daemon=True).start()

    def _beat(self) -> None:
        clock, computed = time.monotonic(), time.thread_time()
        held = computed - self._computed
        if held > NOTED_S:
            stretch = {"at": clock, "cpu_ms": round(held * 1000, 1), "clock_ms": round((clock - self._clock) * 1000, 1)}
            stretch["collector_ms"] = round(self._collected_s * 1000, 1)
            self._log.write(json.dumps({**stretch, "stack": self._stack}) + "\n")
            self._log.flush()
        self._stack, self._collected_s = [], 0.0
        # Not what writing the line took.
        self._clock, self._computed = time.monotonic(), time.thread_time()
        self._loop.call_later(BEAT_S, self._beat)

    def _collect(self, phase: str, _: object) -> None:
        if threading.get_ident() == self._thread:
            if phase == "stop":
                self._collected_s += time.thread_time() - self._collecting
            self._collecting = time.thread_time()

    def _look(self) -> None:
        while True:
            time.sleep(2 * BEAT_S)
            if time.monotonic() - self._clock > 2 * NOTED_S and (frame := sys._current_frames().get(self._thread)):
                calls = traceback.extract_stack(frame)[-INNERMOST:]
                self._stack = [f"{Path(call.filename).name}:{call.lineno} {call.name}" for call in calls]


def main() -> None:
    """Runs the command with the watch on."""
    log = Path(sys.argv.pop(1)).open("a", encoding="utf-8")  # noqa: SIM115 it lasts as long as the process

    def watched_loop() -> uvloop.Loop:
        loop = uvloop.new_event_loop()
        loop.call_soon(Watch, loop, log)
        return loop

    uvloop.run = functools.partial(uvloop.run, loop_factory=watched_loop)
    bridge_main()


if __name__ == "__main__":
    main()

"""The watch notes how long the loop is held, and by what."""

import asyncio
import io
import json
import time

from tests.campaign.watched_proxy import NOTED_S, Watch


class Log(io.StringIO):
    """Tells when the first line is whole."""

    def __init__(self) -> None:
        super().__init__()
        self.has_line = asyncio.Event()

    def flush(self) -> None:
        self.has_line.set()


def busy(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


async def test_a_stretch_of_computing_is_noted_with_its_length() -> None:
    log = Log()
    Watch(asyncio.get_running_loop(), log)
    await asyncio.sleep(0)
    busy(5 * NOTED_S)
    await log.has_line.wait()

    [first, *_] = [json.loads(line) for line in log.getvalue().splitlines()]
    assert first["cpu_ms"] >= 5 * NOTED_S * 1000

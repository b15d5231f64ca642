"""The watch notes how long the loop is held, and by what."""

import asyncio
import io
import json
import time

from tests.campaign.watched_proxy import NOTED_S, Watch


def busy(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


async def test_a_stretch_of_computing_is_noted_with_its_length() -> None:
    log = io.StringIO()
    Watch(asyncio.get_running_loop(), log)
    await asyncio.sleep(0)
    busy(5 * NOTED_S)
    while not log.getvalue():
        await asyncio.sleep(0.01)

    [first, *_] = [json.loads(line) for line in log.getvalue().splitlines()]
    assert first["cpu_ms"] >= 5 * NOTED_S * 1000

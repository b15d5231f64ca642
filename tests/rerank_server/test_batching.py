"""The queue by itself: who is admitted, whose turn it is, and what is dropped."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby

import numpy as np
import pytest

from bridge.models.tokenization import TokenArrays
from rerank_server.batching import WorkQueue
from rerank_server.errors import DeadlineExceeded, Overloaded, TooLarge
from rerank_server.metrics import Metrics


def sequences(*lengths: int) -> list[TokenArrays]:
    return [{"input_ids": np.zeros((1, length), dtype=np.int64)} for length in lengths]


def lengths_of(turn: Sequence[TokenArrays]) -> list[int]:
    return [sequence["input_ids"].size for sequence in turn]


@contextmanager
def queue(*, max_queued: int = 100, max_batch_tokens: int = 10, started: bool = True) -> Iterator[WorkQueue]:
    """A queue with one computing thread."""
    made = WorkQueue(threads=1, max_queued=max_queued, max_batch_tokens=max_batch_tokens, metrics=Metrics())
    if started:
        made.start()
    try:
        yield made
    finally:
        if started:
            made.stop()


def soon() -> float:
    return asyncio.get_running_loop().time() + 60


async def test_results_come_in_input_order_although_the_longest_is_computed_first() -> None:
    turns: list[list[int]] = []

    def compute(turn: Sequence[TokenArrays]) -> list[int]:
        turns.append(lengths_of(turn))
        return lengths_of(turn)

    with queue(max_batch_tokens=7) as work:
        assert await work.run(sequences(2, 9, 4, 3), compute, deadline=soon()) == [2, 9, 4, 3]
    # One sequence may be larger than a turn; else a turn holds so many tokens.
    assert turns == [[9], [4, 3], [2]]


async def test_a_small_request_waits_for_one_turn_of_a_large_one() -> None:
    order: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def large(turn: Sequence[TokenArrays]) -> list[int]:
        order.append("large")
        begun.set()
        go_on.wait(60)
        return lengths_of(turn)

    def small(turn: Sequence[TokenArrays]) -> list[int]:
        order.append("small")
        return lengths_of(turn)

    with queue() as work:
        waiting = asyncio.create_task(work.run(sequences(10, 10, 10), large, deadline=soon()))
        assert await asyncio.to_thread(begun.wait, 60)
        quick = asyncio.create_task(work.run(sequences(1), small, deadline=soon()))
        await asyncio.sleep(0)  # it is in the queue now
        go_on.set()
        await asyncio.gather(waiting, quick)
    assert order[:2] == ["large", "small"]


BIG, SMALL, ONE_TURN = ("big", (10,) * 9), ("small", (10, 10)), ("one", (9,))


@pytest.mark.parametrize(
    ("seconds_per_token", "requests", "order"),
    [
        pytest.param(1e-9, [("first", (10,) * 4), ("second", (10, 9, 9))], "first*4 second*3", id="alike"),
        pytest.param(1.0, [BIG, SMALL], "small*2 big*9", id="a-small-one-overtakes"),
        pytest.param(1e-9, [BIG, ONE_TURN], "one*1 big*9", id="one-turn"),
        pytest.param(1.0, [BIG, *[ONE_TURN] * 15], "one*7 big*1 one*7 big*1 one*1 big*7", id="one-turn-without-end"),
    ],
)
async def test_the_next_turn_is_of_the_request_that_would_have_ended_first_alone(
    seconds_per_token: float, requests: list[tuple[str, tuple[int, ...]]], order: str
) -> None:
    with queue(started=False) as work:
        work._seconds_per_token = seconds_per_token
        running = [
            asyncio.create_task(work.run(sequences(*lengths), lengths_of, deadline=soon())) for _, lengths in requests
        ]
        await asyncio.sleep(0)
        names = {id(job): name for job, (name, _) in zip(work._jobs, requests, strict=True)}
        turns = []
        while work._jobs:
            turn = work._next_turn()
            assert turn is not None
            turns.append(names[id(turn[0])])
        assert " ".join(f"{name}*{len(list(same))}" for name, same in groupby(turns)) == order
        for task in running:
            task.cancel()


async def test_a_request_beyond_the_room_is_refused_at_once_and_told_when_to_come_again() -> None:
    with queue(max_queued=3, started=False) as work, work.admitted(2):
        with pytest.raises(Overloaded, match="2 sequences are waiting and 2 came, room is for 3") as refused:
            work.admitted(2).__enter__()
        assert refused.value.retry_after_s >= 1
        with pytest.raises(TooLarge, match="4 sequences, room is for 3"):
            work.admitted(4).__enter__()
    with queue(max_queued=3, started=False) as work:
        for _ in range(2):  # room is given back
            with work.admitted(3):
                pass


async def test_work_whose_time_is_over_is_not_computed() -> None:
    with queue(started=False) as work:
        with pytest.raises(DeadlineExceeded):
            await work.run(sequences(1), lengths_of, deadline=asyncio.get_running_loop().time())
        assert work._jobs == []


async def test_an_error_ends_its_own_request_alone() -> None:
    def failing(_turn: Sequence[TokenArrays]) -> list[int]:
        raise ValueError("this model cannot")

    with queue() as work:
        with pytest.raises(ValueError, match="this model cannot"):
            await work.run(sequences(1, 2), failing, deadline=soon())
        assert await work.run(sequences(3), lengths_of, deadline=soon()) == [3]
        assert work.is_alive

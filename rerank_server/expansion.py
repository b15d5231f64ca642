"""`/expand`: texts → the queries that they may answer, for an ingest that leaves the model to this machine."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from bridge.models.query_generator import QueryGenerator
from rerank_server.batching import WorkQueue
from rerank_server.errors import DeadlineExceeded, NotServed
from rerank_server.messages import ExpandRequest

TEXTS_AT_ONCE = 8
"""Texts of one request before another request has its turn: a second or so."""


class Expander:
    """Predicts queries, one batch at a time: a generator has threads of its own."""

    def __init__(self, queue: WorkQueue) -> None:
        """`queue` admits: texts to expand take room as pairs to score do."""
        self._queue = queue
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="expand")

    async def queries(
        self, request: ExpandRequest, generator: QueryGenerator | None, *, deadline: float
    ) -> list[list[str]]:
        """Predicted queries of each text, input order, likeliest first; `deadline` in the event loop's time.

        Raises:
            NotServed: there is no generator.
            RequestRefused: no room, or no time.
            ModelError: the generator failed.
        """
        if generator is None:
            raise NotServed("this sidecar has no query generator: set sidecar.generator", field="inputs")
        texts = request.texts
        predicted: list[list[str]] = []
        with self._queue.admitted(len(texts)):
            try:
                async with asyncio.timeout_at(deadline):
                    for start in range(0, len(texts), TEXTS_AT_ONCE):
                        work = partial(
                            generator.generate,
                            texts[start : start + TEXTS_AT_ONCE],
                            n_queries=request.n_queries,
                            max_new_tokens=request.max_new_tokens,
                            seed=request.seed + start,
                        )
                        predicted += await asyncio.get_running_loop().run_in_executor(self._executor, work)
            except TimeoutError as error:
                raise DeadlineExceeded("the request's time was over before its queries were predicted") from error
        return predicted

    def close(self) -> None:
        """Ends the thread after the batch that it works on."""
        self._executor.shutdown(cancel_futures=True)

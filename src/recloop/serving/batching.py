"""Lists of requests that come together, scored together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from recloop.serving.work_queue import OverloadedError

Query = TypeVar("Query")
Result = TypeVar("Result")
MAX_POSITIONS = 10_000  # scored in one pass, padding included: about 50 ms of one core
MAX_WAITING = 2_000


class Batcher(Generic[Query, Result]):
    """Computes one batch at a time in a thread; what comes meanwhile is the next batch. It holds what waits.

    Nobody waits for a clock: a query that comes while nothing is computed begins a batch, with all that the same turn
    of the event loop brings.

    Args:
        compute: the results of some queries, in their order.
        size: of a query, in positions.
        observe: told how many queries a batch has.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Query]], Sequence[Result]],
        size: Callable[[Query], int],
        observe: Callable[[int], None],
    ) -> None:
        self._compute, self._size, self._observe = compute, size, observe
        self._waiting: deque[tuple[Query, asyncio.Future[Result]]] = deque()
        self._is_busy = False
        self._thread = ThreadPoolExecutor(1, "scores")

    async def __call__(self, query: Query) -> Result:
        """The result of one query; OverloadedError where too many wait."""
        if len(self._waiting) >= MAX_WAITING:
            raise OverloadedError(f"{MAX_WAITING} lists wait to be scored; ask again in 1 s", 1)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._waiting.append((query, future))
        if not self._is_busy:
            self._is_busy = True
            loop.call_soon(self._begin, loop)
        return await future

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        batch = self._next_batch()
        if not batch:
            self._is_busy = False
            return
        self._observe(len(batch))
        done = loop.run_in_executor(self._thread, self._compute, [query for query, _ in batch])
        done.add_done_callback(lambda done: self._end(loop, batch, done))

    def _end(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: Sequence[tuple[Query, asyncio.Future[Result]]],
        done: asyncio.Future[Sequence[Result]],
    ) -> None:
        loop.call_soon(self._begin, loop)
        error = done.exception()
        if error is None:
            for (_, future), result in zip(batch, done.result(), strict=True):
                if not future.done():  # whoever asked has not left
                    future.set_result(result)
            return
        for _, future in batch:
            if not future.done():
                future.set_exception(error)

    def _next_batch(self) -> list[tuple[Query, asyncio.Future[Result]]]:
        batch: list[tuple[Query, asyncio.Future[Result]]] = []
        longest = 0
        while self._waiting:
            longest = max(longest, self._size(self._waiting[0][0]))
            if batch and longest * (len(batch) + 1) > MAX_POSITIONS:
                break
            query, future = self._waiting.popleft()
            if not future.done():
                batch.append((query, future))
        return batch

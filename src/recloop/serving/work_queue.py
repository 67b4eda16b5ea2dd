"""Slow work, one piece at a time: it waits in a queue with an end, and beyond that end is refused at once."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from recloop.errors import RecloopError

T = TypeVar("T")
FIRST_GUESS_S = 1.0  # guess: how long a piece takes, before one was seen
MEMORY = 0.8  # weight of what was seen before in the mean time of a piece
MAX_RETRY_AFTER_S = 120


class OverloadedError(RecloopError, RuntimeError):
    """There is no room for a piece of work now; `retry_after_s` says when to ask again."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """One piece of work and who waits for it."""

    work: Callable[[], Any]
    done: asyncio.Future[Any]


class WorkQueue:
    """Blocking work in threads of its own, one piece at a time, for an event loop. It holds what waits.

    Args:
        name: of the work, in messages.
        max_waiting: pieces that may wait while one is done.
        timeout_s: how long a request waits for its piece. Work that has begun goes on beyond it.
    """

    def __init__(self, name: str, max_waiting: int, timeout_s: float) -> None:
        self.name, self.max_waiting, self.timeout_s = name, max_waiting, timeout_s
        self._waiting: deque[Piece] = deque()
        self._is_busy = self._is_closed = False
        self._mean_s = FIRST_GUESS_S

    @property
    def num_waiting(self) -> int:
        """Pieces that have not begun."""
        return len(self._waiting)

    async def run(self, work: Callable[[], T]) -> T:
        """What the work returns or raises.

        Raises:
            OverloadedError: the queue is full or closed, or the time is up.
        """
        if self._is_closed:
            raise OverloadedError("the service is stopping; ask another instance", 1)
        if self._is_busy and len(self._waiting) >= self.max_waiting:
            raise self._overloaded(f"{self.max_waiting} requests wait for {self.name}, and no more may")
        piece = Piece(work, asyncio.get_running_loop().create_future())
        self._waiting.append(piece)
        self._begin_next()
        try:
            async with asyncio.timeout(self.timeout_s):
                return await piece.done
        except TimeoutError:
            raise self._overloaded(f"{self.name} was not done within {self.timeout_s:g} s") from None
        finally:
            if piece in self._waiting:
                self._waiting.remove(piece)

    def close(self) -> None:
        """Refuse what waits and what comes; the piece that is being done goes on."""
        self._is_closed = True
        while self._waiting:
            done = self._waiting.popleft().done
            if not done.done():
                done.set_exception(OverloadedError("the service is stopping; ask another instance", 1))

    def _overloaded(self, what: str) -> OverloadedError:
        wait_s = min(MAX_RETRY_AFTER_S, math.ceil(self._mean_s * (len(self._waiting) + 1)))
        return OverloadedError(f"{what}; ask again in {wait_s} s", wait_s)

    def _begin_next(self) -> None:
        if self._is_busy or not self._waiting:
            return
        piece = self._waiting.popleft()
        self._is_busy = True
        loop = asyncio.get_running_loop()
        # A daemon, so that the end of the process need not wait for a language model.
        threading.Thread(target=self._do, args=(piece, loop), name=self.name, daemon=True).start()

    def _do(self, piece: Piece, loop: asyncio.AbstractEventLoop) -> None:
        start_s = time.monotonic()
        result, error = None, None
        try:
            result = piece.work()
        except Exception as raised:
            error = raised
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._end, piece, result, error, time.monotonic() - start_s)

    def _end(self, piece: Piece, result: Any, error: Exception | None, took_s: float) -> None:
        self._is_busy = False
        self._mean_s = MEMORY * self._mean_s + (1 - MEMORY) * took_s
        if not piece.done.done():
            if error is None:
                piece.done.set_result(result)
            else:
                piece.done.set_exception(error)
        self._begin_next()

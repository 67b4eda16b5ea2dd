"""Queries that come together are computed together, and each gets its own result."""

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

from recloop.serving import batching
from recloop.serving.batching import Batcher
from recloop.serving.work_queue import OverloadedError


def halves(numbers: Sequence[int]) -> list[float]:
    return [number / 2 for number in numbers]


def test_what_comes_in_one_turn_is_one_batch_and_what_comes_meanwhile_is_the_next() -> None:
    sizes: list[int] = []
    begun = threading.Event()

    def slow(numbers: Sequence[int]) -> list[float]:
        begun.set()
        time.sleep(0.05)
        return halves(numbers)

    async def ask() -> list[float]:
        batcher = Batcher(slow, lambda _: 1, sizes.append)
        first = asyncio.gather(*(batcher(number) for number in range(5)))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        later = asyncio.gather(*(batcher(number) for number in range(5, 12)))
        return [*await first, *await later]

    assert asyncio.run(ask()) == [number / 2 for number in range(12)]
    assert sizes == [5, 7]


def test_a_batch_holds_no_more_places_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    # Padded to the longest: 2 x 30 fit into 60, a third of any length does not; one of 100 goes alone.
    monkeypatch.setattr(batching, "MAX_POSITIONS", 60)
    sizes: list[int] = []

    async def ask() -> list[float]:
        batcher = Batcher(halves, lambda number: number, sizes.append)
        return await asyncio.gather(*(batcher(number) for number in (30, 20, 10, 100, 15, 15, 15, 15)))

    assert asyncio.run(ask()) == [15, 10, 5, 50, 7.5, 7.5, 7.5, 7.5]
    assert sizes == [2, 1, 1, 4]


def test_an_error_reaches_all_of_its_batch_and_no_other() -> None:
    def fails_on_3(numbers: Sequence[int]) -> list[float]:
        if 3 in numbers:
            raise ValueError("three")
        return halves(numbers)

    async def ask() -> tuple[list[float | BaseException], float]:
        batcher = Batcher(fails_on_3, lambda _: 1, lambda _: None)
        failed = await asyncio.gather(batcher(1), batcher(3), return_exceptions=True)
        return failed, await batcher(4)

    failed, after = asyncio.run(ask())
    assert all(isinstance(error, ValueError) for error in failed)
    assert after == 2


def test_where_too_many_wait_the_next_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "MAX_WAITING", 3)

    async def ask() -> list[float | BaseException]:
        batcher = Batcher(halves, lambda _: 1, lambda _: None)
        return await asyncio.gather(*(batcher(number) for number in range(5)), return_exceptions=True)

    *done, one, other = asyncio.run(ask())
    assert done == [0, 0.5, 1]
    assert isinstance(one, OverloadedError)
    assert isinstance(other, OverloadedError)

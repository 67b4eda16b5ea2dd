"""Slow work waits in its turn, or is refused at once; everybody gets an answer."""

import asyncio
import threading
import time

import pytest

from recloop.serving.work_queue import OverloadedError, WorkQueue


def test_work_is_done_one_piece_at_a_time_and_in_its_order() -> None:
    running, most, order = 0, 0, []

    def work(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.01)
        order.append(number)
        running -= 1
        return 10 * number

    async def ask() -> list[int]:
        queue = WorkQueue("work", 8, 5.0)
        return await asyncio.gather(*(queue.run(lambda n=n: work(n)) for n in range(6)))

    assert asyncio.run(ask()) == [0, 10, 20, 30, 40, 50]
    assert (most, order) == (1, [0, 1, 2, 3, 4, 5])


def test_beyond_its_end_the_queue_refuses_at_once_and_says_when_to_come_back() -> None:
    may_end = threading.Event()

    async def ask() -> list[BaseException | bool]:
        queue = WorkQueue("the language model", 2, 5.0)
        first = [asyncio.create_task(queue.run(may_end.wait)) for _ in range(3)]  # one is done, two wait
        await asyncio.sleep(0.05)
        start_s = time.monotonic()
        refused = await asyncio.gather(*(queue.run(may_end.wait) for _ in range(20)), return_exceptions=True)
        assert time.monotonic() - start_s < 0.5
        may_end.set()
        return [*refused, *await asyncio.gather(*first)]

    *refused, a, b, c = asyncio.run(ask())
    assert [a, b, c] == [True, True, True]
    assert all(isinstance(error, OverloadedError) and error.retry_after_s >= 1 for error in refused)
    assert "2 requests wait for the language model" in str(refused[0])


def test_who_waits_too_long_is_told_and_the_work_goes_on() -> None:
    done: list[str] = []

    def slow() -> None:
        time.sleep(0.15)
        done.append("slow")

    async def ask() -> str:
        queue = WorkQueue("work", 4, 0.05)
        with pytest.raises(OverloadedError, match="not done within"):
            await queue.run(slow)
        await asyncio.sleep(0.2)
        return await queue.run(lambda: "next")

    assert asyncio.run(ask()) == "next"
    assert done == ["slow"]


def test_who_leaves_gives_up_the_place_and_the_work_is_not_done() -> None:
    may_end, done = threading.Event(), []

    async def ask() -> int:
        queue = WorkQueue("work", 1, 5.0)
        first = asyncio.create_task(queue.run(may_end.wait))
        await asyncio.sleep(0.02)
        leaving = asyncio.create_task(queue.run(lambda: done.append("leaving")))
        await asyncio.sleep(0.02)
        leaving.cancel()
        await asyncio.sleep(0.02)
        num_waiting = queue.num_waiting
        may_end.set()
        await first
        return num_waiting

    assert asyncio.run(ask()) == 0
    assert done == []


def test_an_error_reaches_who_asked_and_the_queue_goes_on() -> None:
    def fail() -> None:
        raise ValueError("no such text")

    async def ask() -> int:
        queue = WorkQueue("work", 4, 5.0)
        with pytest.raises(ValueError, match="no such text"):
            await queue.run(fail)
        return await queue.run(lambda: 3)

    assert asyncio.run(ask()) == 3


def test_a_closed_queue_answers_those_who_wait_and_ends_what_it_does() -> None:
    may_end = threading.Event()

    async def ask() -> tuple[bool, list[BaseException | bool]]:
        queue = WorkQueue("work", 4, 5.0)
        first, *others = [asyncio.create_task(queue.run(may_end.wait)) for _ in range(3)]
        await asyncio.sleep(0.05)
        queue.close()
        refused = await asyncio.gather(*others, queue.run(may_end.wait), return_exceptions=True)
        may_end.set()
        return await first, refused

    is_done, refused = asyncio.run(ask())
    assert is_done
    assert all(isinstance(error, OverloadedError) and "stopping" in str(error) for error in refused)

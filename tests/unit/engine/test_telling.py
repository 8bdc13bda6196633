"""Work as a stream of messages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from sampan.engine.telling import in_thread, told
from sampan.errors import NotFound

Tell = Callable[[int | None], None]


def test_every_message_comes_before_the_failure() -> None:
    async def work(tell: Tell) -> None:
        tell(1)
        tell(None)
        await asyncio.sleep(0)
        tell(3)
        raise NotFound("gone")

    async def scene() -> None:
        messages = told(work)
        assert [await anext(messages) for _ in range(3)] == [1, None, 3]
        with pytest.raises(NotFound, match="gone"):
            await anext(messages)

    asyncio.run(scene())


def test_who_stops_listening_ends_the_work_and_waits_for_it() -> None:
    said = []

    async def work(tell: Tell) -> None:
        tell(1)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            said.append("cleared")

    async def scene() -> None:
        messages = told(work)
        assert await anext(messages) == 1
        await messages.aclose()
        assert said == ["cleared"]

    asyncio.run(scene())


def test_work_in_a_thread_that_is_cancelled_is_told_so_and_waited_for() -> None:
    begun, cancelled, said = Event(), Event(), []

    def work() -> None:
        begun.set()
        cancelled.wait()
        said.append("ended")

    async def scene() -> None:
        with ThreadPoolExecutor(1) as threads:
            task = asyncio.create_task(in_thread(threads, work, cancel=cancelled.set))
            await asyncio.to_thread(begun.wait)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert said == ["ended"]
            assert await in_thread(threads, lambda: 5, cancel=cancelled.set) == 5

    asyncio.run(scene())

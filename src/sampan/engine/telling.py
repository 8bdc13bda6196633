"""Work that tells how it goes on, as a stream of messages.

Laws: no message is lost, and the failure of the work comes after the last of them; whoever closes the stream
cancels the work and waits for its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar

T = TypeVar("T")
Work = Callable[[Callable[[T], None]], Coroutine[Any, Any, None]]
"""Is given what to tell a message with."""


async def told(work: Work[T]) -> AsyncGenerator[T, None]:
    """The messages of ``work``, which begins when the first is asked for. Raises what it raises."""
    messages: asyncio.Queue[tuple[T] | None] = asyncio.Queue()
    task = asyncio.create_task(work(lambda message: messages.put_nowait((message,))))
    task.add_done_callback(lambda _: messages.put_nowait(None))
    try:
        while (message := await messages.get()) is not None:
            yield message[0]
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def in_thread(threads: Executor, work: Callable[[], T], *, cancel: Callable[[], None]) -> T:
    """Do ``work`` in one of the threads. Cancelled, ``cancel`` is to make it end, which is waited for."""
    future = asyncio.get_running_loop().run_in_executor(threads, work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        cancel()
        await asyncio.gather(future, return_exceptions=True)
        raise

"""The daemon's memory after work: what was freed goes back to the kernel once it has grown."""

from __future__ import annotations

import asyncio

from sampan.linux import allocator

_PERIOD = 20.0  # seconds
_GROWTH = 1 << 20  # bytes that are worth the milliseconds


def watch() -> None:
    """Look now and then, while the running loop lives, whether the process has grown; then trim it."""
    loop = asyncio.get_running_loop()

    def look(smallest: int) -> None:
        if allocator.resident() >= smallest + _GROWTH:
            allocator.trim()
            smallest = allocator.resident()
        loop.call_later(_PERIOD, look, smallest)

    look(0)

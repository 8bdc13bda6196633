"""The daemon's memory after work: what is not used goes back to the kernel once it has grown.

Most of what a burst leaves is garbage in cycles, which the collector would come to much later; what is frozen
(``main``) is not looked at again.
"""

from __future__ import annotations

import asyncio
import gc
import time

from sampan.linux import allocator

_PERIOD = 20.0  # seconds
_GROWTH = 1 << 20  # bytes that are worth the milliseconds
_WORK = 0.2  # seconds of CPU that may have left something; so this costs a small part of it


def watch() -> None:
    """Look now and then, while the running loop lives; collect and trim after work that made the process
    larger than it once was."""
    loop = asyncio.get_running_loop()
    smallest, worked = 0, 0.0

    def look() -> None:
        nonlocal smallest, worked
        if time.process_time() >= worked + _WORK and allocator.resident() >= smallest + _GROWTH:
            gc.collect()
            allocator.trim()
            smallest = min(smallest or allocator.resident(), allocator.resident())
            worked = time.process_time()
        loop.call_later(_PERIOD, look)

    look()

"""Something to be done later, so that tests can let the time pass themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeAlias


class Timer(Protocol):
    """What is to come, as long as it can be called off."""

    def cancel(self) -> None: ...


Later: TypeAlias = Callable[[float, Callable[[], None]], Timer]
"""Call a function in so many seconds, unless the timer that is returned is cancelled before."""


def on_loop(seconds: float, callback: Callable[[], None]) -> Timer:
    """By the clock of the running event loop."""
    return asyncio.get_running_loop().call_later(seconds, callback)

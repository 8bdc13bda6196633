"""Clients that finished sending and then go away.

After an end of input asyncio looks at a socket no more: it would be readable for ever. Such a client may
still be reading a stream, so the connection stays; that it has closed altogether is a hang-up, which the
kernel reports for a descriptor in an epoll set whatever events were asked for. TCP has no such hang-up.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable


class Hangups:
    """An epoll set of its own, watched by the loop as one descriptor; made when it is first needed."""

    __slots__ = ("_epoll", "_told")

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._told: dict[int, Callable[[], None]] = {}

    def watch(self, descriptor: int, tell: Callable[[], None]) -> None:
        """Call ``tell`` once when the peer of that Unix socket has closed."""
        if self._epoll is None:
            self._epoll = select.epoll()
            asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._look)
        self._told[descriptor] = tell
        self._epoll.register(descriptor, 0)

    def forget(self, descriptor: int) -> None:
        """Before the descriptor is closed or handed on. Succeeds when it is not watched."""
        if self._told.pop(descriptor, None) is not None and self._epoll is not None:
            self._epoll.unregister(descriptor)

    def close(self) -> None:
        """Watch nothing any more."""
        epoll, self._epoll = self._epoll, None
        self._told.clear()
        if epoll is not None:
            asyncio.get_running_loop().remove_reader(epoll.fileno())
            epoll.close()

    def _look(self) -> None:
        if self._epoll is None:
            return
        for descriptor, _ in self._epoll.poll(0):
            tell = self._told.get(descriptor)
            self.forget(descriptor)
            if tell is not None:
                tell()

"""A minimal readiness loop for keeper and zygote: callbacks on descriptors, nothing else."""

from __future__ import annotations

import select
from collections.abc import Callable

READ, WRITE = select.EPOLLIN, select.EPOLLOUT
HANGUP = select.EPOLLHUP | select.EPOLLERR

Callback = Callable[[int], None]


class Loop:
    """Calls ``callback(events)`` for every ready descriptor until ``stop``.

    A callback may watch and forget any descriptor, also ones that are ready in the same round.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, tuple[Callback, int]] = {}
        self._running = True

    def watch(self, fd: int, events: int, callback: Callback) -> None:
        """Watch ``fd``, or change what is watched for. ``events`` 0 still reports a hang-up."""
        known = self._callbacks.get(fd)
        if known is None:
            self._epoll.register(fd, events)
        elif known[1] != events:
            self._epoll.modify(fd, events)
        self._callbacks[fd] = (callback, events)

    def forget(self, fd: int) -> None:
        """Stop watching ``fd``, before it is closed. Does nothing when it is not watched."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def fileno(self) -> int:
        return self._epoll.fileno()

    def stop(self) -> None:
        self._running = False

    def run(self) -> None:
        while self._running:
            for fd, events in self._epoll.poll():
                watched = self._callbacks.get(fd)
                if watched is not None:
                    watched[0](events)

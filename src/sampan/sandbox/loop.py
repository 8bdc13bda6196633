"""A minimal readiness loop for keeper and zygote: callbacks on descriptors and, for few, timers."""

from __future__ import annotations

import select
import time
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
        self._timers: list[Timer] = []
        self._running = True

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call ``callback`` once, ``seconds`` from now, unless the timer is cancelled before."""
        timer = Timer(self, time.monotonic() + seconds, callback)
        self._timers.append(timer)
        return timer

    def drop(self, timer: Timer) -> None:
        """Have a timer never fire. Does nothing when it has fired."""
        if timer in self._timers:
            self._timers.remove(timer)

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
            for fd, events in self._epoll.poll(self._patience() if self._timers else None):
                watched = self._callbacks.get(fd)
                if watched is not None:
                    watched[0](events)
            if self._timers:
                self._fire()

    def _patience(self) -> float:
        return max(0.0, min(timer.at for timer in self._timers) - time.monotonic())

    def _fire(self) -> None:
        now = time.monotonic()
        for timer in sorted((timer for timer in self._timers if timer.at <= now), key=lambda timer: timer.at):
            if timer in self._timers:
                self._timers.remove(timer)
                timer.callback()


class Timer:
    """A call that is to come, ``at`` a moment of the monotonic clock."""

    __slots__ = ("_loop", "at", "callback")

    def __init__(self, loop: Loop, at: float, callback: Callable[[], None]) -> None:
        self._loop = loop
        self.at = at
        self.callback = callback

    def cancel(self) -> None:
        self._loop.drop(self)

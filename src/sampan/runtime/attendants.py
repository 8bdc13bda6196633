"""Execs, seen from the daemon: each has an attendant for as long as it lasts.

Laws:
- An attendant serves one exec at a time; when it is free again, it waits for the next one, of any container,
  but no more than ``_SPARE`` do so, and none when there was no exec for ``_IDLE`` seconds.
- When its socket ends without a report, the exec counts as killed, and is killed.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from sampan.runtime.link import KeeperGone, Link
from sampan.sandbox.attendant import ATTEND

_KILLED = 137
_SETUP_FAILED = 126
_IDLE = 15.0
_SPARE = 2


class ExecFailed(Exception):
    """The program does not run, in the words of who was to start it; ``code`` is Docker's for the case."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class ExecTask:
    """A running exec; ``resize`` asks for a size of its terminal, in characters."""

    def __init__(
        self, resize: Callable[..., Awaitable[object]], pid: int, exited: asyncio.Future[int]
    ) -> None:
        self._resize = resize
        self.pid = pid
        self.exited = exited

    async def resize(self, height: int, width: int) -> None:
        with suppress(KeeperGone):
            await self._resize(height=height, width=width)


class Attendants:
    """``request`` sends a document and descriptors to the zygote."""

    def __init__(self, request: Callable[[bytes, Sequence[int]], Awaitable[None]]) -> None:
        self._request = request
        self._free: list[Link] = []
        self._dismissal: asyncio.TimerHandle | None = None
        self._closed = False

    async def run(self, fds: Sequence[int], request: dict[str, Any]) -> ExecTask:
        """Have a program run in a container; ``fds`` are its pidfd and the client's socket, if any.

        Raises ExecFailed.
        """
        link = self._free.pop() if self._free else await self._order()
        running = _Running(link, asyncio.get_running_loop().create_future(), self._take_back)
        try:
            answer = await link.ask("exec", fds, **request)
        except KeeperGone as error:
            raise ExecFailed("its attendant ended without a word", _SETUP_FAILED) from error
        except BaseException:
            link.close()
            raise
        if "failed" in answer:
            running.forget()
            self._take_back(link)
            raise ExecFailed(answer["failed"], answer["code"])
        return ExecTask(functools.partial(link.ask, "resize"), answer["pid"], running.exited)

    def close(self) -> None:
        """Let nobody wait any more."""
        self._closed = True
        if self._dismissal is not None:
            self._dismissal.cancel()
        self._dismiss()

    async def _order(self) -> Link:
        """A new one, which ends with the link."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                await self._request(ATTEND, (theirs.fileno(),))
            except BaseException:
                ours.close()
                raise
        link = Link(ours)
        link.begin()
        return link

    def _take_back(self, link: Link) -> None:
        if self._closed or len(self._free) == _SPARE:
            link.close()
            return
        link.on_end = lambda: self._gone(link)
        self._free.append(link)
        if self._dismissal is not None:
            self._dismissal.cancel()
        self._dismissal = asyncio.get_running_loop().call_later(_IDLE, self._dismiss)

    def _gone(self, link: Link) -> None:
        if link in self._free:
            self._free.remove(link)

    def _dismiss(self) -> None:
        for link in tuple(self._free):
            link.close()


class _Running:
    """What is known of a program until its end; then its attendant's ``link`` is given to ``free``."""

    def __init__(self, link: Link, exited: asyncio.Future[int], free: Callable[[Link], None]) -> None:
        self.exited = exited
        self._link = link
        self._free = free
        self._pidfd = -1
        link.on_event = self._happened
        link.on_end = self._end

    def forget(self) -> None:
        """It does not run."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def _happened(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "cloned":
                (self._pidfd,) = event["fds"]
            case "exec-exit":
                self.forget()
                if not self.exited.done():
                    self.exited.set_result(event["code"])
            case "free":
                self._free(self._link)

    def _end(self) -> None:
        """The attendant is gone; without a report, it was killed, and the program is to follow it."""
        if self._pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        self.forget()
        if not self.exited.done():
            self.exited.set_result(_KILLED)

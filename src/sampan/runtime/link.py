"""The daemon's end of one keeper, or attendant: requests with answers, and events.

Law: every future that was handed out is resolved, at the latest when the keeper is gone.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

from sampan.errors import Unavailable
from sampan.sandbox import channel


class KeeperGone(Unavailable):
    """The keeper's socket has ended: it has finished, or was killed."""


class Link:
    """``on_event`` gets every event, ``on_end`` is called once when the keeper is gone."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loop = asyncio.get_running_loop()
        self.on_event: Callable[[dict[str, Any]], None] = lambda _event: None
        self.on_end: Callable[[], None] = lambda: None
        sock.setblocking(False)

    def begin(self) -> None:
        self._loop.add_reader(self._socket.fileno(), self._readable)

    def let_go(self) -> None:
        """Close the connection and leave the keeper to a later daemon."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def close(self) -> None:
        """The keeper is gone: fail what still waits for it."""
        if self._socket.fileno() < 0:
            return
        self.let_go()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(KeeperGone("the container's keeper is gone"))
        self._answers.clear()
        self.on_end()

    async def ask(self, op: str, fds: Sequence[int] = (), **arguments: object) -> dict[str, Any]:
        """Send a request and wait for its answer; ``fds`` in it are the caller's. Raises KeeperGone."""
        number = next(self._numbers)
        answer = self._answers[number] = self._loop.create_future()
        try:
            channel.send(self._socket, {"seq": number, "op": op, **arguments}, fds)
        except OSError as error:
            self._answers.pop(number, None)
            raise KeeperGone("the container's keeper is gone") from error
        result: dict[str, Any] = await answer
        return result

    def _readable(self) -> None:
        try:
            while self._socket.fileno() >= 0:
                message = channel.receive(self._socket)
                if message is None:
                    self.close()
                    return
                self._take(*message)
        except BlockingIOError:
            return
        except OSError:
            self.close()

    def _take(self, document: dict[str, Any], fds: list[int]) -> None:
        if fds:
            document["fds"] = fds
        if "event" in document:
            self.on_event(document)
            return
        answer = self._answers.pop(document["seq"], None)
        if answer is not None and not answer.done():
            answer.set_result(document)
            return
        for fd in fds:
            os.close(fd)

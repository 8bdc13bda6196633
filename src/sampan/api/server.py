"""The HTTP server: listeners, and what they share. One connection's life is in `api/connection.py`.

Laws: a client that cannot be trusted to be quick or honest holds a bounded amount of memory (one head, one
buffer of its body, one buffer of its answer); an answer that was begun is finished or visibly cut; closing
the server closes idle connections at once and gives busy ones a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import stat
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from sampan.api.connection import Connection
from sampan.api.doors import OPEN, Door
from sampan.api.routing import Route, Router
from sampan.api.service import Service, descriptors_share, turns
from sampan.errors import Conflict

if TYPE_CHECKING:
    import ssl

    from sampan.api.tls import Terminator

log = logging.getLogger("sampan.api")

BACKLOG = 512

COMPLAIN_EVERY = 10.0
"""Seconds between two complaints that no connection can be accepted."""


class Server:
    """Serves one engine's API on any number of listening sockets.

    ``engine`` is handed to every handler untouched.
    """

    def __init__(self, engine: Any, routes: Iterable[Route]) -> None:
        self._service = Service(engine=engine, router=Router(routes), share=descriptors_share())
        self._listeners: list[asyncio.Server] = []
        self._paths: list[tuple[str, tuple[int, int]]] = []
        self._complained = -COMPLAIN_EVERY

    async def listen_unix(
        self, path: str, *, mode: int = 0o660, gid: int | None = None, door: Door = OPEN
    ) -> None:
        """Listen on a Unix socket of that mode, owned by the group ``gid``.

        A socket left behind by a dead process is replaced; raises Conflict when something answers on it.
        """
        listener = await bind_unix(path, mode=mode, gid=gid)
        info = os.stat(path)
        self._paths.append((path, (info.st_dev, info.st_ino)))
        await self.listen(listener, door)

    async def listen_tcp(
        self, host: str, port: int, *, rules: ssl.SSLContext | None, door: Door = OPEN
    ) -> None:
        """Listen on TCP, with TLS by ``rules``. Without: whoever reaches the port is root on this machine."""
        make: Callable[[], asyncio.Protocol] = partial(Connection, self._service, door)
        if rules is not None:
            make = partial(self._secured, rules, door)
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._trouble)
        self._listeners.append(await loop.create_server(make, host, port, backlog=BACKLOG))

    async def listen(self, listener: socket.socket, door: Door = OPEN) -> None:
        """Listen on a ready stream socket (an inherited one, as systemd passes it); owns it from now on."""
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._trouble)
        make = loop.create_unix_server if listener.family == socket.AF_UNIX else loop.create_server
        connection = partial(Connection, self._service, door)
        self._listeners.append(await make(connection, sock=listener, backlog=BACKLOG))

    def _secured(self, rules: ssl.SSLContext, door: Door) -> Terminator:
        from sampan.api.tls import Terminator

        return Terminator(rules, partial(Connection, self._service, door))

    def _trouble(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Of connections that wait for free descriptors asyncio complains some hundred times a second."""
        if "socket.accept()" not in context["message"]:
            loop.default_exception_handler(context)
        elif loop.time() - self._complained >= COMPLAIN_EVERY:
            self._complained = loop.time()
            log.error("connections have to wait: %s", context.get("exception"))

    @property
    def connections(self) -> int:
        """How many clients are connected; those with hijacked streams are not."""
        return len(self._service.connections)

    @property
    def sockets(self) -> tuple[Any, ...]:
        """The listening sockets."""
        return tuple(sock for listener in self._listeners for sock in listener.sockets)

    async def close(self, grace: float = 2.0) -> None:
        """Stop listening, end idle connections, give busy ones ``grace`` seconds, then cut them.

        Hijacked connections are no longer ours and live on.
        """
        # asyncio drops connections on the floor, open, that it accepted in the turn in which it is closed.
        loop = asyncio.get_running_loop()
        for sock in self.sockets:
            loop.remove_reader(sock.fileno())
        await turns(2)
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        for path, identity in self._paths:
            with contextlib.suppress(OSError):
                info = os.stat(path)
                if (info.st_dev, info.st_ino) == identity:
                    os.unlink(path)
        self._paths.clear()
        await self._service.drain(grace)


async def bind_unix(path: str, *, mode: int, gid: int | None) -> socket.socket:
    """A bound Unix socket that never had a wider mode than ``mode``."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise Conflict(f"{path} exists and is not a socket")
        if await _answers(path):
            raise Conflict(f"{path} is in use by another process")
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        # Linux makes the file with the socket inode's own mode: there is no moment of a wider one.
        os.fchmod(listener.fileno(), mode)
        listener.bind(path)
        os.chmod(path, mode)
        if gid is not None:
            os.chown(path, -1, gid)
    except BaseException:
        listener.close()
        raise
    return listener


async def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(probe, path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except BlockingIOError:
            return True  # its backlog is full: somebody is there
        return True

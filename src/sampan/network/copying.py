"""What reaches the sockets of published ports themselves is copied to the container, by the daemon.

That is what the kernel cannot lead there: [::1], and addresses of a version of IP that the container has not.
Law: a copy holds no more than a chunk for each direction, and ends with either side; of datagrams each client
has a socket of its own towards the container, which is closed when nothing came by it for a while. Answers go
out from the address that the client asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import Sequence
from typing import Any, TypeAlias

_BACKLOG = 128
_CHUNK = 1 << 16
_LARGEST = 65535
_AT_ONCE = 64  # datagrams that are passed on before others get their turn
_MOST_CLIENTS = 4096  # of one port, whose datagrams are passed on
_SILENCE = 90.0  # seconds after which a client of datagrams is forgotten, as docker-proxy has it
_ANCILLARY = 256  # bytes
_PACKET_INFO6 = 50  # IPV6_PKTINFO, which the socket module knows by this name on some systems only
_RECEIVE_INFO6 = 49
_IP_PACKET_INFO = 8

_Kinds: TypeAlias = dict[str, tuple[int, int]]
_KINDS: _Kinds = {
    "tcp": (socket.SOCK_STREAM, 0),
    "udp": (socket.SOCK_DGRAM, 0),
    "sctp": (socket.SOCK_STREAM, socket.IPPROTO_SCTP),
}


@functools.cache
def has_sctp() -> bool:
    """Whether the kernel has SCTP, which it may load for the asking."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    except OSError:
        return False
    return True


def bound(protocol: str, host: str, port: int) -> socket.socket:
    """A socket that holds a port of the host. OSError when it is taken."""
    kind, number = _KINDS[protocol]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, kind, number)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        elif family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, _RECEIVE_INFO6, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_PACKET_INFO, 1)
        sock.bind((host, port))
        if protocol == "tcp":
            sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


class Copying:
    """All methods are for the event loop's thread."""

    def __init__(self) -> None:
        self._copies: set[asyncio.Task[None]] = set()
        self._clients: dict[socket.socket, dict[Any, _Client]] = {}

    def serve(self, sock: socket.socket, address: str, port: int) -> None:
        """Copy what reaches the socket to ``port`` of ``address``."""
        loop = asyncio.get_running_loop()
        if sock.proto == socket.IPPROTO_SCTP:
            return  # held, so that nobody else has it; the kernel alone leads there
        if sock.type == socket.SOCK_STREAM:
            loop.add_reader(sock.fileno(), self._accept, sock, address, port)
        else:
            self._clients[sock] = {}
            loop.add_reader(sock.fileno(), self._datagrams, sock, address, port)

    def leave(self, sock: socket.socket) -> None:
        """Copy no more of what reaches the socket; connections that are under way go on."""
        if sock.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(sock.fileno())
        for client in self._clients.pop(sock, {}).values():
            client.close()

    def close(self) -> None:
        for task in self._copies:
            task.cancel()
        for sock in list(self._clients):
            self.leave(sock)

    # ---- connections ---------------------------------------------------------------------------------------

    def _accept(self, sock: socket.socket, address: str, port: int) -> None:
        with contextlib.suppress(OSError):
            client, _ = sock.accept()
            client.setblocking(False)
            task = asyncio.get_running_loop().create_task(_copy_between(client, address, port))
            self._copies.add(task)
            task.add_done_callback(self._copies.discard)

    # ---- datagrams -----------------------------------------------------------------------------------------

    def _datagrams(self, sock: socket.socket, address: str, port: int) -> None:
        clients = self._clients[sock]
        for _ in range(_AT_ONCE):
            try:
                data, ancillary, _, source = sock.recvmsg(_LARGEST, _ANCILLARY)
            except OSError:
                return
            client = clients.get(source)
            if client is None:
                if len(clients) >= _MOST_CLIENTS:
                    continue
                try:
                    client = _Client(sock, source, _asked(ancillary), (address, port))
                except OSError:  # the container is gone
                    continue
                clients[source] = client
                client.begin(lambda source=source: clients.pop(source, None))
            client.send(data)


def _asked(ancillary: Sequence[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    """What lets an answer leave from the address that was asked."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IPV6, _PACKET_INFO6):
            return [(level, kind, data[:16] + bytes(4))]
        if (level, kind) == (socket.IPPROTO_IP, _IP_PACKET_INFO):
            return [(level, kind, bytes(4) + data[4:8] + bytes(4))]
    return []


class _Client:
    """One client of a port of datagrams, and its socket towards the container."""

    def __init__(
        self,
        outer: socket.socket,
        source: Any,
        ancillary: list[tuple[int, int, bytes]],
        target: tuple[str, int],
    ) -> None:
        self._outer = outer
        self._source = source
        self._ancillary = ancillary
        family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
        self._inner = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._inner.connect(target)
        except OSError:
            self._inner.close()
            raise
        self._heard = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._forget: Any = None

    def begin(self, forget: Any) -> None:
        """``forget`` is called when it has been silent for long."""
        loop = asyncio.get_running_loop()
        self._forget = forget
        loop.add_reader(self._inner.fileno(), self._answers)
        self._timer = loop.call_later(_SILENCE, self._look)

    def send(self, data: bytes) -> None:
        self._heard = asyncio.get_running_loop().time()
        with contextlib.suppress(OSError):  # lost, as datagrams may be
            self._inner.send(data)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._inner.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._inner.fileno())
            self._inner.close()

    def _answers(self) -> None:
        self._heard = asyncio.get_running_loop().time()
        for _ in range(_AT_ONCE):
            try:
                data = self._inner.recv(_LARGEST)
            except BlockingIOError:
                return
            except OSError:  # nobody listens there, for now
                return
            with contextlib.suppress(OSError):
                self._outer.sendmsg([data], self._ancillary, 0, self._source)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        left = self._heard + _SILENCE - loop.time()
        if left > 0:
            self._timer = loop.call_later(left, self._look)
            return
        self.close()
        self._forget()


async def _copy_between(client: socket.socket, address: str, port: int) -> None:
    """A connection to the container for a client, until both have ended."""
    try:
        theirs = await asyncio.open_connection(sock=client)
    except OSError:
        client.close()
        return
    try:
        ours = await asyncio.open_connection(address, port)
    except OSError:
        theirs[1].close()
        return
    try:
        await asyncio.gather(_copy(theirs[0], ours[1]), _copy(ours[0], theirs[1]))
    except OSError:
        return
    finally:
        theirs[1].close()
        ours[1].close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()

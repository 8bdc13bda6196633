"""Connections that leave HTTP: attach and exec turn a request's connection into the streams themselves."""

from __future__ import annotations

import select
import socket
from typing import Protocol


class Leaver(Protocol):
    """The connection of a hijacked request."""

    def hand_over(self) -> tuple[socket.socket, bytes]:
        """Leave the event loop with the connection open."""


class HijackedStream:
    """A connection that has left HTTP; see `request.ClientStream`.

    What the client sends is kept, within bounds, until it is detached, however long that takes. A client that
    goes away meanwhile leaves a socket that is at its end.
    """

    __slots__ = ("_connection",)

    def __init__(self, connection: Leaver) -> None:
        self._connection: Leaver | None = connection

    def detach(self) -> tuple[socket.socket, bytes]:
        """The raw blocking socket and the bytes received after the request. Only once."""
        connection, self._connection = self._connection, None
        if connection is None:
            raise RuntimeError("the connection was detached before")
        return connection.hand_over()


def dead_socket() -> socket.socket:
    """A socket whose peer has closed: what is left of a client that has gone away."""
    ours, theirs = socket.socketpair()
    theirs.close()
    return ours


def peer_closed(sock: socket.socket) -> bool:
    """After an end of input: has the peer closed, or only finished sending?

    TCP cannot tell; there it counts as closed, as in Docker.
    """
    if sock.family != socket.AF_UNIX:
        return True
    poll = select.poll()
    poll.register(sock.fileno(), 0)
    return any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0))

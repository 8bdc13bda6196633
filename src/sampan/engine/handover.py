"""Handing a client's connection over to who writes the output.

Law: nothing follows the head of an answer before the client has read it. docker-py parses the head through a
buffer and then reads the socket beneath it: output that was in the buffer already is lost to it. Docker
hardly ever meets that, since its commands take longer to start; here a busy client may not have looked yet.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sampan.engine.ports import ClientStream

_PATIENCE = 0.5  # seconds for a client to read what it asked for
_PROMPT = 0.0005  # seconds in which most clients have read it: not worth a timer, which takes a millisecond


class Detached:
    """A stream whose socket has left the event loop."""

    def __init__(self, sock: socket.socket, early: bytes) -> None:
        self.socket = sock
        self.early = early

    def detach(self) -> tuple[socket.socket, bytes]:
        return self.socket, self.early


async def with_head_read(stream: ClientStream) -> Detached:
    """The stream, once its client has read all that was sent so far, or is too late for that."""
    taken = Detached(*stream.detach())
    clock = asyncio.get_running_loop().time
    began = clock()
    try:
        while _unread(taken.socket) and (waited := clock() - began) < _PATIENCE:
            await asyncio.sleep(0 if waited < _PROMPT else 0.001)
    except BaseException:
        taken.socket.close()
        raise
    return taken


def _unread(sock: socket.socket) -> int:
    """Bytes sent that the peer has not taken: not read (Unix) or not acknowledged (TCP)."""
    try:
        return int(struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0])
    except OSError:
        return 0  # the peer has closed

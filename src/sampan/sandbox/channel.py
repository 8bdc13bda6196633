"""Messages between daemon, zygote, keeper and child: JSON documents with descriptors over SEQPACKET sockets.

Law: one send is one message, whole or not at all. A document larger than a packet travels in a memfd, as the
first descriptor, announced by an empty packet body of one NUL byte.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any

_INLINE = 8 << 10
_IN_MEMFD = b"\0"
_MAX_FDS = 250
_INT = struct.calcsize("i")


def send(sock: socket.socket, document: Any, fds: Sequence[int] = ()) -> None:
    """Send a document (any JSON value, or bytes that are JSON already). Raises OSError."""
    data = document if isinstance(document, bytes) else json.dumps(document, separators=(",", ":")).encode()
    send_bytes(sock, data, fds)


def send_bytes(sock: socket.socket, data: bytes, fds: Sequence[int] = ()) -> None:
    """Send what is encoded already."""
    if len(data) <= _INLINE:
        _send(sock, data, fds)
        return
    memfd = as_memfd(data)
    try:
        _send(sock, _IN_MEMFD, (memfd, *fds))
    finally:
        os.close(memfd)


def _send(sock: socket.socket, data: bytes, fds: Sequence[int]) -> None:
    if fds:
        socket.send_fds(sock, [data], list(fds))
    else:
        sock.send(data)


def as_memfd(data: bytes) -> int:
    """A descriptor, owned by the caller, of an anonymous file with this content."""
    fd = os.memfd_create("message", os.MFD_CLOEXEC)
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    return fd


def receive(sock: socket.socket) -> tuple[Any, list[int]] | None:
    """The next message and its descriptors (close-on-exec, owned by the caller); None at the end.

    Raises BlockingIOError on a non-blocking socket without a message.
    """
    message = receive_bytes(sock)
    return message and (json.loads(message[0]), message[1])


def _receive(sock: socket.socket) -> tuple[bytes, list[tuple[int, int, bytes]]]:
    # socket.recv_fds does not pass its flags on: descriptors would be inherited by what is executed.
    data, ancillary, _, _ = sock.recvmsg(
        _INLINE + 1, socket.CMSG_SPACE(_MAX_FDS * _INT), socket.MSG_CMSG_CLOEXEC
    )
    return data, ancillary


def receive_bytes(sock: socket.socket) -> tuple[bytes, list[int]] | None:
    """As ``receive``, not decoded."""
    try:
        data, ancillary = _receive(sock)
    except ConnectionResetError:
        # The peer ended without reading everything, which is told once and first: its last words are there.
        data, ancillary = _receive(sock)
    fds: list[int] = []
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            whole = len(content) // _INT * _INT
            fds += struct.unpack(f"{whole // _INT}i", content[:whole])
    if not data:
        for fd in fds:
            os.close(fd)
        return None
    if data == _IN_MEMFD:
        memfd = fds.pop(0)
        try:
            data = os.pread(memfd, os.fstat(memfd).st_size, 0)
        finally:
            os.close(memfd)
    return data, fds

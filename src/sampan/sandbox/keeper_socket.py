"""The socket in a container's bundle by which a later daemon finds its keeper."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_NAME = "keeper.sock"


@contextmanager
def path_of(bundle: str) -> Iterator[str]:
    """A path of a bundle's keeper socket that fits an address (108 bytes), however deep the bundle lies."""
    fd = os.open(bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{_NAME}"
    finally:
        os.close(fd)


def listen(fd: int, bundle: str) -> None:
    """Make the new socket ``fd`` listen in the keeper's bundle; one that a dead keeper left there goes."""
    with suppress(FileNotFoundError):
        os.unlink(f"{bundle}/{_NAME}")
    listener = socket.socket(fileno=fd)
    listener.setblocking(False)
    with path_of(bundle) as path:
        listener.bind(path)
    listener.listen(8)
    listener.detach()


def remove(bundle: str) -> None:
    """Remove the socket and its bundle. Succeeds if they are gone already."""
    with suppress(FileNotFoundError):
        os.unlink(f"{bundle}/{_NAME}")
    with suppress(OSError):
        os.rmdir(bundle)


def connect(bundle: str) -> socket.socket:
    """A connection to the bundle's keeper. Raises OSError when none lives."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with path_of(bundle) as path:
            sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock

"""Collectors of logs as their protocols describe them: real sockets, read by a thread."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import struct
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

PATIENCE = 20.0


class Collector:
    """Keeps what it is sent. ``address`` is where; ``kind`` is tcp, udp, unix or unixgram.

    It takes no more than ``limit`` bytes from streams until that is raised.
    """

    def __init__(self, kind: str, *, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.kind = kind
        self._tls = tls
        self.limit = 1 << 62
        self.streams: list[bytes] = []  # one for each connection
        self.datagrams: list[bytes] = []
        self.answer: Callable[[bytes], bytes] | None = None
        self._changed = threading.Condition()
        self._folder = ""
        stream = kind in ("tcp", "unix")
        family = socket.AF_UNIX if kind.startswith("unix") else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM)
        if family == socket.AF_UNIX:
            self._folder = tempfile.mkdtemp(prefix="collector-")
            self.address = f"{self._folder}/socket"
            self._socket.bind(self.address)
        else:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(("127.0.0.1", port))
            self.port = self._socket.getsockname()[1]
            self.address = f"127.0.0.1:{self.port}"
        if stream:
            self._socket.listen()
        self._open: list[socket.socket] = [self._socket]
        self._threads: list[threading.Thread] = []
        self._begin(self._accept if stream else self._take, self._socket)

    def _begin(self, work: Callable[[socket.socket], None], sock: socket.socket) -> None:
        thread = threading.Thread(target=work, args=(sock,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = sock.accept()
                self._open.append(connection)
                self._begin(self._read, connection)

    def _read(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
            with self._changed:
                number = len(self.streams)
                self.streams.append(b"")
            while data := sock.recv(1 << 16):
                with self._changed:
                    self.streams[number] += data
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: len(self.received) < self.limit)
                if self.answer is not None:
                    sock.sendall(self.answer(data))

    def _take(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, handed, _, _ = socket.recv_fds(sock, 1 << 20, 1)
                for fd in handed:
                    data = os.pread(fd, os.fstat(fd).st_size, 0)
                    os.close(fd)
                with self._changed:
                    self.datagrams.append(data)
                    self._changed.notify_all()

    def wait(self, true: Callable[[Collector], bool]) -> None:
        """Until it is so, of what was received."""
        with self._changed:
            came = self._changed.wait_for(lambda: true(self), PATIENCE)
            assert came, (self.received[-1000:], self.datagrams[-10:])

    @property
    def received(self) -> bytes:
        """What all streams brought, one after the other."""
        return b"".join(self.streams)

    def take(self, more: int) -> None:
        """Raise the limit to so many bytes more than there are."""
        with self._changed:
            self.limit = len(self.received) + more
            self._changed.notify_all()

    def close(self) -> None:
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        if self._folder:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.address)
            os.rmdir(self._folder)


@contextlib.contextmanager
def collecting(kind: str, *, port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[Collector]:
    made = Collector(kind, port=port, tls=tls)
    try:
        yield made
    finally:
        made.close()


def gelf_messages(collector: Collector) -> list[dict[str, Any]]:
    """Messages of datagrams: put together from their chunks, unpacked, decoded."""
    whole: list[bytes] = []
    chunks: dict[bytes, dict[int, bytes]] = {}
    for datagram in list(collector.datagrams):
        if datagram[:2] != b"\x1e\x0f":
            whole.append(datagram)
            continue
        known = chunks.setdefault(datagram[2:10], {})
        known[datagram[10]] = datagram[12:]
        if len(known) == datagram[11]:
            whole.append(b"".join(known[number] for number in range(datagram[11])))
    found = []
    for message in whole:
        packed = message[:1] in (b"\x1f", b"\x78")
        found.append(json.loads(zlib.decompress(message, 47) if packed else message))
    return found


def forwarded(data: bytes) -> list[list[Any]]:
    """The messages of fluentd's forward protocol that ``data`` holds: [tag, [[time, record], …], options]."""
    found = []
    while data:
        for end in range(1, len(data) + 1):
            # A message says nothing of its length: the shortest prefix that is one.
            if end < len(data) and data[end] != 0x93:
                continue
            with contextlib.suppress(msgspec.DecodeError):
                found.append(msgspec.msgpack.decode(data[:end]))
                data = data[end:]
                break
        else:
            break
    return found


def journal_fields(datagram: bytes) -> dict[str, str]:
    """The fields of a record in systemd's native protocol."""
    found = {}
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (size,) = struct.unpack("<Q", rest[:8])
            value, rest = rest[8 : 8 + size], rest[9 + size :]
        found[name.decode()] = value.decode()
        datagram = rest
    return found

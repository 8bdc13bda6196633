"""Connections to collectors of logs, with the words that a Go program has for what goes wrong.

Everything here has a time limit: a collector that does not answer holds nothing up but its own log.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING

from sampan.deferred import asyncio_with_tls

if TYPE_CHECKING:
    import ssl

TIMEOUT = 10.0  # seconds to connect, and for what is sent to be taken

_KINDS = {"unix": socket.SOCK_STREAM, "unixgram": socket.SOCK_DGRAM}


class Unreachable(Exception):
    """The collector cannot be reached or does not take what is sent; the text says why."""


def host_port(text: str, default: str) -> tuple[str, str]:
    """``host[:port]`` taken apart; brackets of an IPv6 address are removed."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return host, rest.removeprefix(":") or default
    host, colon, port = text.rpartition(":")
    return (host, port) if colon else (text, default)


def joined(host: str, port: str) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Connection:
    """A connected socket. ``send`` returns when the kernel has all of it."""

    def __init__(self, sock: socket.socket, tls: ssl.SSLContext | None = None, name: str = "") -> None:
        sock.setblocking(False)
        self._sock = sock
        self._tls = tls
        self._name = name
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def secure(self) -> None:
        """Shake hands, when there is to be TLS."""
        if self._tls is not None:
            asyncio_with_tls()
            self._streams = await asyncio.open_connection(
                sock=self._sock, ssl=self._tls, server_hostname=self._name
            )

    async def send(self, data: bytes) -> None:
        """Raises Unreachable when it was not taken; some of it may have been, then."""
        try:
            async with asyncio.timeout(TIMEOUT):
                if self._streams is not None:
                    self._streams[1].write(data)
                    await self._streams[1].drain()
                else:
                    await asyncio.get_running_loop().sock_sendall(self._sock, data)
        except TimeoutError:
            raise Unreachable("write: i/o timeout") from None
        except OSError as error:
            raise Unreachable(f"write: {reason(error)}") from error

    async def send_datagram(self, data: bytes) -> None:
        """UDP promises nothing: that nobody listened to an earlier one is told, and this one is sent."""
        try:
            await self.send(data)
        except Unreachable:
            await self.send(data)

    async def receive(self) -> bytes:
        """Some bytes. Raises Unreachable at the end, and when nothing comes."""
        try:
            async with asyncio.timeout(TIMEOUT):
                data = await asyncio.get_running_loop().sock_recv(self._sock, 65536)
        except TimeoutError:
            raise Unreachable("read: i/o timeout") from None
        except OSError as error:
            raise Unreachable(f"read: {reason(error)}") from error
        if not data:
            raise Unreachable("EOF")
        return data

    def alive(self) -> bool:
        """False when the peer is known to have closed: what would be sent now would be lost."""
        if self._streams is not None:
            return not self._streams[0].at_eof()
        try:
            return self._sock.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()  # owns the socket, and may have something to send yet
        else:
            self._sock.close()


async def stream(host: str, port: str, tls: ssl.SSLContext | None = None) -> Connection:
    """A TCP connection, with TLS if a context is given."""
    sock = await _connected(socket.SOCK_STREAM, "tcp", host, port)
    connection = Connection(sock, tls, host)
    try:
        async with asyncio.timeout(TIMEOUT):
            await connection.secure()
    except TimeoutError:
        connection.close()
        raise Unreachable("tls: handshake timeout") from None
    except OSError as error:  # those of TLS are of its kind
        connection.close()
        raise Unreachable(f"tls: {reason(error)}") from error
    return connection


async def datagrams(host: str, port: str) -> Connection:
    """A UDP socket; whether anybody listens is not known."""
    return Connection(await _connected(socket.SOCK_DGRAM, "udp", host, port))


async def _connected(kind: socket.SocketKind, name: str, host: str, port: str) -> socket.socket:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(TIMEOUT):
            found = await loop.getaddrinfo(host, port, type=kind)
            family, _, _, _, address = found[0]
            sock = socket.socket(family, kind)
            sock.setblocking(False)
            try:
                await loop.sock_connect(sock, address)
            except BaseException:
                sock.close()
                raise
    except TimeoutError:
        raise Unreachable(f"dial {name} {joined(host, port)}: i/o timeout") from None
    except socket.gaierror:
        raise Unreachable(f"dial {name}: lookup {host}: no such host") from None
    except OSError as error:
        raise Unreachable(f"dial {name} {joined(host, port)}: connect: {reason(error)}") from error
    return sock


async def local(path: str, kind: str) -> Connection:
    """A Unix socket; ``kind`` is unix (a stream) or unixgram."""
    sock = socket.socket(socket.AF_UNIX, _KINDS[kind])
    sock.setblocking(False)
    try:
        async with asyncio.timeout(TIMEOUT):
            await asyncio.get_running_loop().sock_connect(sock, path)
    except (OSError, TimeoutError) as error:
        sock.close()
        what = reason(error) if isinstance(error, OSError) else "i/o timeout"
        raise Unreachable(f"dial {kind} {path}: connect: {what}") from error
    except BaseException:
        sock.close()
        raise
    return Connection(sock)


def reason(error: OSError) -> str:
    """An error as Go has it: the kernel's words in lower case."""
    if message := getattr(error, "verify_message", ""):  # of an ssl.SSLCertVerificationError
        return f"failed to verify certificate: {message}"
    return (os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)).lower()

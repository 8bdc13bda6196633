"""One connection to a daemon: connect, send a request, pull the answer. Owner of its socket.

An ``Answer`` must be read to its end before the connection carries another request; a hijacked one hands
the socket over and the connection is spent.
"""

from __future__ import annotations

import _socket
import errno

from sampan.client.http import NONE, Body, Head, ProtocolError
from sampan.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sampan.client.tls import Material

PIECE = 65536


class Unreachable(Failure):
    """Nobody answers at the address. ``absent`` when there is no listener at all."""

    def __init__(self, message: str, *, absent: bool) -> None:
        super().__init__(message)
        self.absent = absent


class Address:
    """Where a daemon listens: ``unix://PATH``, ``tcp://HOST[:PORT]`` or ``ssh://[USER@]HOST[:PORT][/PATH]``.

    ``tls``: what to speak TLS with on a tcp address (None: plain).
    """

    __slots__ = ("host", "path", "port", "ssh", "text", "tls")

    def __init__(self, text: str, *, tls: Material | None = None) -> None:
        scheme, sign, rest = text.partition("://")
        self.text = text
        self.host = self.path = ""
        self.port = 0
        self.ssh = scheme == "ssh" and bool(sign)
        self.tls = tls
        if scheme == "unix" and rest:
            self.path = rest
        elif scheme in ("tcp", "http"):
            rest = rest.rstrip("/")
            host, _, port = rest.rpartition(":") if ":" in rest else (rest, "", "2376" if tls else "2375")
            if not port.isdigit():
                raise Failure(f"unable to parse docker host `{text}`")
            self.host = host.strip("[]") or "127.0.0.1"
            self.port = int(port)
        elif self.ssh:
            from sampan.client.ssh import check

            check(text)
        else:
            raise Failure(f"unable to parse docker host `{text}`")

    @property
    def http_host(self) -> str:
        """What the Host header names."""
        return f"{self.host}:{self.port}" if self.host else "api.moby.localhost"


def _open(address: Address) -> _socket.socket:
    if address.ssh:
        from sampan.client.ssh import dial

        return dial(address.text)
    if address.path:
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        where: object = address.path
    else:
        found = _socket.getaddrinfo(address.host, address.port, 0, _socket.SOCK_STREAM)[0]
        sock = _socket.socket(found[0], _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        where = found[4]
    try:
        sock.connect(where)  # type: ignore[arg-type]
    except OSError:
        sock.close()
        raise
    if address.tls is not None:
        from sampan.client.tls import secured

        return secured(sock, address.host, address.tls)
    return sock


def connect(address: Address) -> Connection:
    """Connect, or raise ``Unreachable`` in Docker's words."""
    try:
        return Connection(_open(address), address)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            raise Unreachable(
                "permission denied while trying to connect to the Sampan daemon socket at "
                f"{address.text}: connect: permission denied",
                absent=False,
            ) from error
        raise Unreachable(
            f"Cannot connect to the Sampan daemon at {address.text}. Is the sampan daemon running?",
            absent=error.errno in (errno.ENOENT, errno.ECONNREFUSED),
        ) from error


class Connection:
    """A connected socket and the bytes received beyond the last answer."""

    __slots__ = ("address", "early", "reused", "sock")

    def __init__(self, sock: _socket.socket, address: Address) -> None:
        self.sock = sock
        self.address = address
        self.early = b""
        self.reused = False

    def send(self, data: bytes) -> None:
        """Send all of ``data``. A peer that closed early may still have answered, so that is no error."""
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            if self.reused:
                raise

    def give_up_after(self, seconds: int) -> None:
        """Let a read of a silent peer fail after that time."""
        from struct import pack

        self.sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, pack("ll", seconds, 0))

    def receive(self) -> bytes:
        """Some bytes, or none when the peer closed."""
        try:
            return self.sock.recv(PIECE)
        except ConnectionResetError:
            return b""

    def answer(self, method: str) -> Answer:
        """The head of the answer to the request just sent (interim answers are skipped)."""
        data = self.early
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                more = self.receive()
                if not more:
                    raise ProtocolError("unexpected EOF" if data else "EOF")
                data += more
                continue
            head = Head(data[:end])
            data = data[end + 4 :]
            if head.status >= 200 or head.status == 101:
                self.early = data
                return Answer(self, head, method)

    def fileno(self) -> int:
        return self.sock.fileno()

    def close(self) -> None:
        self.sock.close()


class Answer:
    """A status, its headers and a body that is still on its way."""

    __slots__ = ("body", "connection", "headers", "status")

    def __init__(self, connection: Connection, head: Head, method: str) -> None:
        self.connection = connection
        self.status = head.status
        self.headers = head.headers
        framing, length = head.framing(method)
        self.body = Body(framing, length) if head.status != 101 else Body(NONE, 0)

    def take(self) -> bytes:
        """One receive's worth of body; may be empty before ``self.body.done`` as chunk borders are eaten."""
        data = self.connection.early or self.connection.receive()
        self.connection.early = b""
        return self.body.feed(data)

    def pieces(self) -> Iterator[bytes]:
        """The body in pieces as they come."""
        while not self.body.done:
            piece = self.take()
            if piece:
                yield piece

    def read(self) -> bytes:
        """The whole body."""
        return b"".join(self.pieces())

    def hijacked(self) -> tuple[int, bytes]:
        """The raw stream's descriptor, owned by the caller, and the bytes that already came with the head."""
        early, self.connection.early = self.connection.early, b""
        return self.connection.sock.detach(), early

    def close(self) -> None:
        self.connection.close()

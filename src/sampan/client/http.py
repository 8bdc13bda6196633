"""HTTP/1.1 as an Engine API client speaks it: bytes in, values out, no I/O.

Laws: a request's head is one write; an answer's body has exactly one framing (none, length, chunks, until
the peer closes); bytes after the head belong to the body, and after a 101 to the raw stream.
"""

from __future__ import annotations

NONE = 0  # no body: 1xx, 204, 304, answers to HEAD
LENGTH = 1
CHUNKED = 2
UNTIL_CLOSE = 3

_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~")


class ProtocolError(Exception):
    """The peer does not speak HTTP/1.1."""


def quote(text: str, safe: str = "") -> str:
    """Percent-encode ``text`` for a path segment or a query value."""
    keep = _UNRESERVED.union(safe.encode())
    data = text.encode("utf-8", "surrogateescape")
    if keep.issuperset(data):
        return text
    return "".join(chr(byte) if byte in keep else f"%{byte:02X}" for byte in data)


def target(path: str, query: dict[str, str] | None) -> str:
    """The request target of ``path`` with ``query``, keys sorted as Go's url.Values does."""
    if not query:
        return path
    return (
        path
        + ("&" if "?" in path else "?")
        + "&".join(f"{quote(key)}={quote(query[key])}" for key in sorted(query))
    )


def request(
    method: str, where: str, headers: dict[str, str], *, body: bytes | None = b"", host: str = "localhost"
) -> bytes:
    """A request's bytes. ``body`` None announces a chunked body, which the caller then sends."""
    lines = [f"{method} {where} HTTP/1.1", f"Host: {host}", "User-Agent: Sampan-Client"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body is None:
        lines.append("Transfer-Encoding: chunked")
    elif body or method in ("POST", "PUT"):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + (body or b"")


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; empty data is the end of the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Head:
    """Status line and header fields (names in lower case; a repeated field keeps its last value)."""

    __slots__ = ("headers", "reason", "status")

    def __init__(self, text: bytes) -> None:
        first, *rest = text.decode("latin-1").split("\r\n")
        version, _, status = first.partition(" ")
        if not version.startswith("HTTP/1.") or not status[:3].isdigit():
            raise ProtocolError(f"malformed HTTP response {first[:60]!r}")
        self.status = int(status[:3])
        self.reason = status[4:]
        self.headers: dict[str, str] = {}
        for line in rest:
            name, _, value = line.partition(":")
            self.headers[name.lower()] = value.strip()

    def framing(self, method: str) -> tuple[int, int]:
        """How the body is delimited, and its length where that is known."""
        if method == "HEAD" or self.status < 200 or self.status in (204, 304):
            return NONE, 0
        if "chunked" in self.headers.get("transfer-encoding", ""):
            return CHUNKED, 0
        length = self.headers.get("content-length")
        if length is None:
            return UNTIL_CLOSE, 0
        return LENGTH, int(length)


class Body:
    """Takes the bytes that follow a head and gives the body's bytes. ``done`` once it is complete."""

    __slots__ = ("_framing", "_left", "_rest", "_trailer", "done")

    def __init__(self, framing: int, length: int) -> None:
        self._framing = framing
        self._left = length  # bytes still owed by the length or by the current chunk
        self._rest = b""  # an incomplete chunk line
        self._trailer = False
        self.done = framing == NONE or (framing == LENGTH and length == 0)

    def feed(self, data: bytes) -> bytes:
        """The body bytes in ``data``. Empty ``data`` means that the peer closed."""
        if not data:
            if self._framing in (LENGTH, CHUNKED) and not self.done:
                raise ProtocolError("unexpected EOF")
            self.done = True
            return b""
        if self._framing == UNTIL_CLOSE:
            return data
        if self._framing == LENGTH:
            part = data[: self._left]
            self._left -= len(part)
            self.done = self._left == 0
            return part
        return self._chunks(data)

    def _chunks(self, data: bytes) -> bytes:
        data = self._rest + data
        self._rest = b""
        parts: list[bytes] = []
        at = 0
        while at < len(data) and not self.done:
            if self._left > 2:  # the chunk's bytes and the line end after them
                part = data[at : at + self._left - 2]
                parts.append(part)
                at += len(part)
                self._left -= len(part)
                continue
            if self._left:  # its line end
                skipped = min(self._left, len(data) - at)
                at += skipped
                self._left -= skipped
                continue
            end = data.find(b"\r\n", at)
            if end < 0:
                self._rest = data[at:]
                break
            self._chunk_line(data[at:end])
            at = end + 2
        return b"".join(parts)

    def _chunk_line(self, line: bytes) -> None:
        if self._trailer:
            self.done = not line
            return
        try:
            size = int(line.partition(b";")[0], 16)
        except ValueError:
            raise ProtocolError("malformed chunked encoding") from None
        if size:
            self._left = size + 2
        else:
            self._trailer = True

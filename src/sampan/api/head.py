"""Heads: parsing a request's with httptools, writing a response's."""

from __future__ import annotations

import time

import httptools

from sampan import __version__
from sampan.api.params import unquote
from sampan.api.responses import REASONS
from sampan.api.routing import DEFAULT_VERSION, show
from sampan.wire.http import ProtocolError


class RequestHead:
    """Method, target and fields of one request, filled by httptools' callbacks."""

    __slots__ = ("_parser", "_target", "fields", "keep_alive", "legacy", "method")

    def __init__(self, data: bytes) -> None:
        """Parse a complete head, its empty line included. Raises ProtocolError."""
        self._target = b""
        self.fields: dict[bytes, bytes] = {}
        self.keep_alive = False
        parser = self._parser = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # the upgrade is the handler's to grant; our head ends here either way
        except httptools.HttpParserError as error:
            raise ProtocolError(str(error)) from None
        self.method = parser.get_method().decode("ascii")
        self.legacy = parser.get_http_version() == "1.0"
        """An HTTP/1.0 client: it knows no chunks."""
        del self._parser  # the parser refers back to us

    def on_url(self, target: bytes) -> None:
        self._target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields[name.lower()] = value

    def on_headers_complete(self) -> None:
        self.keep_alive = self._parser.should_keep_alive()

    def target(self) -> tuple[str, str]:
        """Decoded path and raw query."""
        target = self._target.decode("latin-1")
        if target[:1] != "/":
            target = "/" + target.partition("://")[2].partition("/")[2]
        path, _, query = target.partition("?")
        return unquote(path), query

    def body_length(self) -> int:
        """Length of the body in bytes; -1 when it is chunked. Raises ProtocolError."""
        coding = self.fields.get(b"transfer-encoding")
        if coding is not None:
            if coding.strip().lower() != b"chunked":
                raise ProtocolError("unsupported transfer encoding")
            return -1
        return int(self.fields.get(b"content-length", b"0"))


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_COMMON = (
    f"Api-Version: {show(DEFAULT_VERSION)}\r\nDocker-Experimental: false\r\nOstype: linux\r\n"
    f"Server: Sampan/{__version__} (linux)\r\n"
)


def http_date(seconds: int) -> str:
    """``Sun, 06 Nov 1994 08:49:37 GMT``, whatever the locale."""
    t = time.gmtime(seconds)
    return (
        f"{_DAYS[t.tm_wday]}, {t.tm_mday:02} {_MONTHS[t.tm_mon - 1]} {t.tm_year:04} "
        f"{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02} GMT"
    )


class ResponseHeads:
    """Heads of responses; the part that every answer shares is made once a second."""

    __slots__ = ("_fields", "_second", "_starts")

    def __init__(self) -> None:
        self._second = -1
        self._fields = b""
        self._starts = {
            status: f"HTTP/1.1 {status} {reason}\r\n".encode("ascii") for status, reason in REASONS.items()
        }

    def head(self, status: int, content_type: str | None, headers: bytes, framing: bytes) -> bytes:
        """A complete head. ``headers`` and ``framing`` are ready lines, each ending in CRLF."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._fields = f"{_COMMON}Date: {http_date(second)}\r\n".encode("ascii")
        start = self._starts.get(status) or b"HTTP/1.1 %d Status\r\n" % status
        kind = f"Content-Type: {content_type}\r\n".encode("latin-1") if content_type else b""
        return b"".join((start, self._fields, kind, headers, framing, b"\r\n"))

"""What a handler returns: a value that says what to send; `api/server.py` alone sends it.

    json_response(value)            a complete JSON document
    EMPTY / NOT_MODIFIED            204 / 304
    text(...)                       a complete plain text
    Stream(source, content_type)    head at once, then chunks as the source yields them
    HIJACKED                        the handler's `Request.hijacker` took the connection over

Law: the head of a stream is on its way before the source is asked for its first item (clients wait for it:
`docker run` starts the container only when `wait` has answered its head).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import msgspec

from sampan.errors import Failure

if TYPE_CHECKING:
    from typing import TypeAlias

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
TAR = "application/x-tar"
RAW_STREAM = "application/vnd.docker.raw-stream"
MULTIPLEXED_STREAM = "application/vnd.docker.multiplexed-stream"

_encode = msgspec.json.Encoder().encode

REASONS = {
    200: "OK",
    201: "Created",
    204: "No Content",
    301: "Moved Permanently",
    304: "Not Modified",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Request Entity Too Large",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
}


class Response:
    """A complete answer. ``headers`` are further fields as ready lines, each ending in CRLF."""

    __slots__ = ("body", "content_type", "headers", "status")

    def __init__(
        self, status: int, body: bytes = b"", content_type: str | None = None, headers: bytes = b""
    ) -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers


class Stream:
    """An answer whose body is produced over time.

    ``source`` is closed (``aclose``) when the client goes away. A failure that it raises after the head was
    sent cuts the connection, so that no client takes the body for complete; a source that has a way to
    report failures in band (`progress`) does so itself.
    """

    __slots__ = ("content_type", "headers", "source", "status")

    def __init__(
        self, source: AsyncIterator[bytes], content_type: str, *, status: int = 200, headers: bytes = b""
    ) -> None:
        self.source = source
        self.content_type = content_type
        self.status = status
        self.headers = headers


class Hijacked:
    """The connection is no longer ours; nothing is sent."""

    __slots__ = ()


EMPTY = Response(204)
NOT_MODIFIED = Response(304)
HIJACKED = Hijacked()

Answer: TypeAlias = Response | Stream | Hijacked


def json_response(value: Any, *, status: int = 200) -> Response:
    """A JSON document: structs, mappings, sequences and scalars; ends in a newline as Docker's do."""
    return Response(status, _encode(value) + b"\n", JSON)


def json_line(value: Any) -> bytes:
    """One document of a stream of JSON lines."""
    return _encode(value) + b"\n"


def text(body: bytes, *, status: int = 200, headers: bytes = b"") -> Response:
    """Plain text."""
    return Response(status, body, TEXT, headers)


async def progress(lines: AsyncIterator[Any]) -> AsyncIterator[bytes]:
    """A stream of JSON messages as `docker load` or `pull` read it.

    A `Failure` after the head was sent becomes Docker's last message, ``{"errorDetail": …, "error": …}``.
    """
    try:
        async for line in lines:
            yield json_line(line)
    except Failure as failure:
        message = " ".join(str(failure).splitlines())
        yield json_line({"errorDetail": {"message": message}, "error": message})

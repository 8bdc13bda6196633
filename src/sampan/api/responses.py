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

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from sampan.errors import Failure, of_host

if TYPE_CHECKING:
    from typing import TypeAlias

    from sampan.images.model import Span

T = TypeVar("T")

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
TAR = "application/x-tar"
RAW_STREAM = "application/vnd.docker.raw-stream"
MULTIPLEXED_STREAM = "application/vnd.docker.multiplexed-stream"

encode = msgspec.json.Encoder().encode

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
    """An answer whose body is produced over time, as bytes or as spans of files that the kernel sends.

    ``source`` is closed (``aclose``) when the client goes away. A failure that it raises after the head was
    sent cuts the connection, so that no client takes the body for complete; a source that has a way to
    report failures in band (`progress`) does so itself.
    """

    __slots__ = ("content_type", "headers", "source", "status")

    def __init__(
        self,
        source: AsyncIterator[bytes | Span],
        content_type: str,
        *,
        status: int = 200,
        headers: bytes = b"",
    ) -> None:
        self.source = source
        self.content_type = content_type
        self.status = status
        self.headers = headers


class Hijacked:
    """The connection is no longer ours; nothing is sent."""

    __slots__ = ()


EMPTY = Response(204)
EMPTY_OK = Response(200)
NOT_MODIFIED = Response(304)
HIJACKED = Hijacked()

Answer: TypeAlias = Response | Stream | Hijacked


def json_response(value: Any, *, status: int = 200) -> Response:
    """A JSON document: structs, mappings, sequences and scalars; ends in a newline as Docker's do."""
    return Response(status, encode(value) + b"\n", JSON)


def document_response(document: bytes) -> Response:
    """A response whose body is a JSON document, encoded already."""
    return Response(200, document + b"\n", JSON)


def joined(document: bytes, more: dict[str, Any]) -> bytes:
    """A JSON object that has members, with further ones at its end."""
    return document[:-1] + b"," + encode(more)[1:]


def json_line(value: Any) -> bytes:
    """One document of a stream of JSON lines."""
    return encode(value) + b"\n"


def text(body: bytes, *, status: int = 200, headers: bytes = b"") -> Response:
    """Plain text."""
    return Response(status, body, TEXT, headers)


class Rendered(Generic[T]):
    """The items of ``source`` as bytes, for a `Stream`.

    A `Failure` of the source, or of the host below it, becomes its last item when ``last_words`` has some
    for it. Unlike a generator, it closes its source even if it was never asked for an item.
    """

    __slots__ = ("_last_words", "_render", "_source")

    def __init__(
        self,
        source: AsyncIterator[T],
        render: Callable[[T], bytes],
        last_words: Callable[[Failure], bytes] | None = None,
    ) -> None:
        self._source: AsyncIterator[T] | None = source
        self._render = render
        self._last_words = last_words

    def __aiter__(self) -> Rendered[T]:
        return self

    async def __anext__(self) -> bytes:
        if self._source is None:
            raise StopAsyncIteration
        try:
            return self._render(await anext(self._source))
        except (Failure, OSError) as error:
            failure = error if isinstance(error, Failure) else of_host(error)
            if self._last_words is None or failure is None:
                raise
            self._source = None
            return self._last_words(failure)

    async def aclose(self) -> None:
        close = getattr(self._source, "aclose", None)
        if close is not None:
            await close()


def progress(lines: AsyncIterator[Any]) -> Rendered[Any]:
    """A stream of JSON messages as `docker load` or `pull` read it.

    A `Failure` after the head was sent becomes Docker's last message, ``{"errorDetail": …, "error": …}``.
    """
    return Rendered(lines, json_line, _error_detail)


def _error_detail(failure: Failure) -> bytes:
    message = " ".join(str(failure).splitlines())
    return json_line({"errorDetail": {"message": message}, "error": message})

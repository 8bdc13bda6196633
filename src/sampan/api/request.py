"""A request as a handler sees it. Its body is read from the connection only as fast as it is asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

from sampan.api import handshake
from sampan.api.decode import decode_json
from sampan.api.params import Query
from sampan.api.responses import MULTIPLEXED_STREAM, RAW_STREAM
from sampan.errors import InvalidArgument

if TYPE_CHECKING:
    import socket

    from sampan.api.doors import Caller

T = TypeVar("T")

MAX_JSON = 4 * 1024 * 1024
"""Longest JSON body, in bytes."""


class ClientStream(Protocol):
    """A hijacked connection (structurally the runtime's protocol of the same name)."""

    def detach(self) -> tuple[socket.socket, bytes]:
        """The raw socket, blocking, and the bytes already received; the caller owns both now."""


class Exchange(Protocol):
    """What a request needs of the connection that it arrived on."""

    async def read_body(self) -> bytes:
        """The next piece of the body, b"" at its end. Raises BodyAborted when the client goes away."""

    def hijack(self, head: bytes) -> ClientStream:
        """Send ``head`` and leave HTTP."""

    @property
    def caller(self) -> Caller:
        """Who sent it."""


class _Replay:
    """A connection whose request's body was read before."""

    def __init__(self, exchange: Exchange, body: bytes) -> None:
        self._exchange = exchange
        self._body = body

    async def read_body(self) -> bytes:
        body, self._body = self._body, b""
        return body

    def hijack(self, head: bytes) -> ClientStream:
        return self._exchange.hijack(head)

    @property
    def caller(self) -> Caller:
        return self._exchange.caller


class Request:
    """One request. ``name`` is the decoded value of the route's {name}; ``version`` the API version."""

    __slots__ = (
        "_exchange",
        "_query",
        "body_length",
        "headers",
        "method",
        "name",
        "number",
        "path",
        "raw_query",
        "version",
    )

    def __init__(
        self,
        exchange: Exchange,
        *,
        number: int,
        method: str,
        path: str,
        raw_query: str,
        headers: dict[bytes, bytes],
        version: tuple[int, int],
        name: str,
        body_length: int,
    ) -> None:
        self._exchange = exchange
        self._query: Query | None = None
        self.number = number
        self.method = method
        self.path = path
        self.raw_query = raw_query
        self.headers = headers
        """Field names are lower case; of a repeated field the last one counts."""
        self.version = version
        self.name = name
        self.body_length = body_length
        """In bytes; -1 when chunked."""

    @property
    def caller(self) -> Caller:
        """Who sent the request."""
        return self._exchange.caller

    @property
    def query(self) -> Query:
        """The query parameters, parsed when first asked for."""
        query = self._query
        if query is None:
            query = self._query = Query(self.raw_query)
        return query

    def requery(self, raw: str) -> None:
        """Have whoever answers find other parameters."""
        self.raw_query, self._query = raw, None

    def replay(self, body: bytes) -> None:
        """Have the body, which was read, read again by whoever answers."""
        self._exchange = _Replay(self._exchange, body)

    def header(self, name: str) -> str:
        """Value of a header field, "" when absent."""
        return self.headers.get(name.lower().encode("ascii"), b"").decode("latin-1")

    async def body(self) -> AsyncIterator[bytes]:
        """The body in pieces; the client is slowed down to the pace of the iteration."""
        while piece := await self._exchange.read_body():
            yield piece

    async def read(self, limit: int = MAX_JSON) -> bytes:
        """The whole body; InvalidArgument when it is longer than ``limit`` bytes."""
        if self.body_length > limit:
            raise InvalidArgument(f"request body is too large: the limit is {limit} bytes")
        if self.body_length == 0:
            return b""
        pieces: list[bytes] = []
        size = 0
        while piece := await self._exchange.read_body():
            size += len(piece)
            if size > limit:
                raise InvalidArgument(f"request body is too large: the limit is {limit} bytes")
            pieces.append(piece)
        return b"".join(pieces)

    async def json(self, kind: type[T], *, optional: bool = False) -> T:
        """The body decoded into ``kind`` (a msgspec struct).

        Nulls count as absent, unknown fields are ignored, field names match without regard to case, as in
        Go. An empty body is an error unless ``optional``, which gives the struct's defaults.
        """
        self.check_json()
        return decode_json(await self.read(), kind, optional=optional)

    def check_json(self) -> None:
        """Docker's check of the content type: application/json, or nothing at all for an empty body."""
        given = self.headers.get(b"content-type", b"").decode("latin-1")
        if not given and self.body_length == 0:
            return
        if given.partition(";")[0].strip().lower() == "application/json":
            return
        if not given:
            raise InvalidArgument("malformed Content-Type header (): mime: no media type")
        raise InvalidArgument(f"unsupported Content-Type header ({given}): must be 'application/json'")

    def websocket_hijacker(self) -> Callable[[], ClientStream]:
        """The same for a request that asks for a WebSocket; InvalidArgument when it does not."""
        accepted = handshake.accept(self.header("upgrade"), self.header("sec-websocket-key"))
        head = (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accepted}\r\n"
        )
        return lambda: self._exchange.hijack(head.encode("ascii"))

    def hijacker(self, *, multiplexed: bool) -> Callable[[], ClientStream]:
        """What takes the connection over when called: the answer's head is sent then, not before.

        ``multiplexed``: the stream will carry stdcopy frames. Call it once; afterwards the handler returns
        HIJACKED and reports nothing over HTTP any more.
        """
        framed = multiplexed and self.version >= (1, 42)
        if b"upgrade" in self.headers:
            content_type = MULTIPLEXED_STREAM if framed else RAW_STREAM
            head = (
                f"HTTP/1.1 101 UPGRADED\r\nContent-Type: {content_type}\r\n"
                "Connection: Upgrade\r\nUpgrade: tcp\r\n"
            )
        else:
            head = f"HTTP/1.1 200 OK\r\nContent-Type: {RAW_STREAM}\r\n"
        return lambda: self._exchange.hijack(head.encode("ascii"))

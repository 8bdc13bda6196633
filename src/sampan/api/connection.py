"""One client connection: requests in, answers out, in order, until it is closed or handed over.

    IDLE ── complete head ──► BUSY ── answer sent ──► IDLE
                                │                 ├─► SKIPPING   rest of an unread small body, then IDLE
                                │                 └─► LINGERING  rest of an unread large body, then closed
                                └── hijack ──► BUSY until detached ──► HANDED OVER

Laws:
- One request at a time: while one is answered, later bytes wait in `_buffer`, and reading pauses when that
  holds `BUFFER` bytes. A message's bytes are taken from the buffer exactly, so what follows a hijacked
  request is never parsed and never lost.
- No new request is begun before the client has taken what it was given (see `outlet`).
- A handler runs to its end though its client is gone: what was begun is finished. Only the sources of
  streams end with their client.
- Handing over duplicates the descriptor and lets the transport close its own: a shutdown never happens.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable
from typing import TYPE_CHECKING, cast

from sampan.api.bodies import IncomingBody
from sampan.api.current import REQUEST
from sampan.api.doors import OPEN, Caller, Door, caller, guarded
from sampan.api.errors import BodyAborted, error_response, message_response
from sampan.api.head import RequestHead
from sampan.api.hijack import HijackedStream, dead_socket, peer_closed
from sampan.api.outlet import Outlet
from sampan.api.request import Request
from sampan.api.responses import Answer, Hijacked, Response, Stream
from sampan.api.routing import split_version
from sampan.api.service import Entry
from sampan.wire.http import ProtocolError

if TYPE_CHECKING:
    from sampan.api.service import Service

log = logging.getLogger("sampan.api")

MAX_HEAD = 256 * 1024
"""Longest head of a request, in bytes."""

BUFFER = 256 * 1024
"""Received bytes kept for a request that is not asked for them yet."""

SKIP = 256 * 1024
"""Longest unread rest of a body that is read and dropped to keep the connection."""

HEAD_SECONDS = 60.0
"""Time for a head to arrive once its first byte has."""

LINGER_SECONDS = 1.0
"""How long a client that still sends a refused body has to read the answer."""

TURN = 64
"""Pipelined requests answered before other connections get their turn."""

_IDLE, _BUSY, _SKIPPING, _LINGERING, _HANDED_OVER = range(5)


class Connection(asyncio.Protocol):
    """See the module."""

    def __init__(self, service: Service, door: Door = OPEN, client: Caller | None = None) -> None:
        self._service = service
        self._door = door
        self._client = client  # known already, if TLS stands before this connection
        self._state = _IDLE
        self._buffer = bytearray()
        self._scanned = 0
        self._paused = False  # reading is paused
        self._eof = False  # the client will send no more
        self._watched = -1  # the descriptor, while it is among the service's hangups
        self._arrival: asyncio.Future[None] | None = None  # a reader of the body waits for bytes
        self._timer: asyncio.TimerHandle | None = None
        self._head: RequestHead | None = None
        self._body = IncomingBody()
        self._continue = False  # the client waits for "100 Continue" before it sends its body
        self._streaming = False
        self._switched = False  # the head of a hijack was sent: no more HTTP
        self.task: asyncio.Task[None] | None = None

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._outlet = Outlet(self._transport)
        entry = self._service.enter(self, self._door)
        if self._door.guards and self._client is None:
            # Now: the kernel forgets who it was when the client goes away.
            self._client = caller(self._transport.get_extra_info("socket"))
        if self._service.closing:
            self._transport.close()
        elif entry is Entry.REFUSED:
            self._refuse(
                503, f"there are {self._service.share} connections to this socket: close some of them"
            )
        elif entry is Entry.CUT:
            self._transport.abort()

    def connection_lost(self, _error: Exception | None) -> None:
        self._service.leave(self, self._door)
        self._unwatch()
        self._eof = True
        self._stop_timer()
        self._wake()
        self._outlet.lose()
        self._end_stream()

    def data_received(self, data: bytes) -> None:
        if self._state == _LINGERING:
            return
        self._buffer += data
        if self._state == _IDLE:
            self._advance()
        elif self._state == _SKIPPING:
            self._skip()
        else:
            self._wake()
            if len(self._buffer) >= BUFFER and not self._paused:
                self._paused = True
                self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._eof = True
        if self._state in (_IDLE, _SKIPPING, _LINGERING):
            return False
        self._wake()
        sock = self._transport.get_extra_info("socket")
        if peer_closed(sock):
            self._hung_up()
        else:
            self._watched = sock.fileno()
            self._service.hangups.watch(self._watched, self._hung_up)
        return True

    def _hung_up(self) -> None:
        """The client will not see what is sent: what is sent only to it ends."""
        self._outlet.gone = True
        self._watched = -1
        self._end_stream()

    def _end_stream(self) -> None:
        if self._streaming and self.task is not None:
            self.task.cancel()

    def _unwatch(self) -> None:
        if self._watched >= 0:
            self._service.hangups.forget(self._watched)
            self._watched = -1

    def pause_writing(self) -> None:
        self._outlet.unsent = True

    def resume_writing(self) -> None:
        self._outlet.resume()
        if self._state == _IDLE and self._buffer:
            self._advance()

    def _wake(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Ending

    def end(self) -> None:
        """The server closes: end now if idle or streaming, else after the current answer."""
        if self._state in (_IDLE, _SKIPPING):
            self._transport.close()
        else:
            self._end_stream()

    def cut(self) -> None:
        """End without regard for what is going on."""
        if self.task is not None:
            self.task.cancel()
        if self._state != _HANDED_OVER:
            self._transport.abort()

    def _too_slow(self) -> None:
        self._timer = None
        if self._state == _IDLE:
            self._refuse(408, "the request's head did not arrive in time")

    def _refuse(self, status: int, message: str) -> None:
        """Answer something that is no request, and close."""
        self._head = None
        self._buffer.clear()
        self._send(message_response(status, message), keep=False)
        self._linger()

    def _linger(self) -> None:
        """Close, but let a client that is still sending read its answer first."""
        self._state = _LINGERING
        self._buffer.clear()
        if self._eof:
            self._transport.close()
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._transport.abort)
        self._resume_reading()

    # Requests

    def _advance(self) -> None:
        """Begin the requests that have arrived, as far as they can be answered at once."""
        for _ in range(TURN):
            if self._outlet.unsent or self._state != _IDLE or not self._buffer:
                break
            if not self._take_head():
                break
        else:
            asyncio.get_running_loop().call_soon(self._resume_turn)
        if self._state == _IDLE and self._eof and not self._outlet.unsent:
            self._transport.close()

    def _resume_turn(self) -> None:
        if self._state == _IDLE and not self._transport.is_closing():
            self._advance()

    def _take_head(self) -> bool:
        """Begin one request; False when its head is not complete."""
        buffer = self._buffer
        if buffer[0] in b"\r\n":  # empty lines before a request are allowed
            del buffer[: len(buffer) - len(buffer.lstrip(b"\r\n"))]
            self._scanned = 0
            return bool(buffer)
        end = buffer.find(b"\r\n\r\n", self._scanned)
        if end < 0:
            self._scanned = max(0, len(buffer) - 3)
            if len(buffer) > MAX_HEAD:
                self._refuse(431, "request header fields are too large")
            elif self._timer is None:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(HEAD_SECONDS, self._too_slow)
            return False
        self._scanned = 0
        self._stop_timer()
        data = bytes(buffer[: end + 4])
        del buffer[: end + 4]
        try:
            head = RequestHead(data)
            length = head.body_length()
        except ProtocolError as error:
            self._refuse(400, f"malformed HTTP request: {error}")
            return False
        self._begin(head, length)
        return True

    def _begin(self, head: RequestHead, length: int) -> None:
        self._state = _BUSY
        self._head = head
        self._body = IncomingBody(length)
        self._continue = bool(length) and head.fields.get(b"expect", b"").lower() == b"100-continue"
        service = self._service
        service.requests = number = service.requests + 1
        REQUEST.set(number)
        answer: Answer | Awaitable[Answer]
        try:
            target, query = head.target()
            version, path = split_version(target)
            if log.isEnabledFor(logging.DEBUG):  # without the query: it may have secrets
                log.debug("%s %s", head.method, path)
            handler, name = service.router.find(head.method, path)
            request = Request(
                self,
                number=number,
                method=head.method,
                path=path,
                raw_query=query,
                headers=head.fields,
                version=version,
                name=name,
                body_length=length,
            )
            guards = self._door.guards
            if guards:
                answer = guarded(handler, request, service.engine, guards)
            else:
                answer = handler(request, service.engine)
        except Exception as error:
            answer = error_response(error, number)
        if isinstance(answer, Response):
            self._send(answer, keep=self._settle_body())
            self._answered()
        else:
            self.task = asyncio.get_running_loop().create_task(self._serve(answer, number))

    async def _serve(self, answer: Answer | Awaitable[Answer], number: int) -> None:
        """Answer the current request, then go on with the next."""
        try:
            if not isinstance(answer, (Response, Stream, Hijacked)):
                answer = await self._outcome(answer, number)
            if isinstance(answer, Stream):
                await self._stream(answer, number)
            elif isinstance(answer, Response) and self._may_answer():
                self._send(answer, keep=self._settle_body())
        finally:
            self.task = None
        if self._state != _BUSY:
            return
        if self._switched and isinstance(answer, Hijacked):
            return  # whoever has the stream detaches it when it is needed: an attach may wait for its start
        if self._switched or isinstance(answer, Hijacked) or self._transport.is_closing():
            self._transport.abort()
            return
        self._answered()
        self._advance()

    def _may_answer(self) -> bool:
        return self._state == _BUSY and not self._switched and not self._transport.is_closing()

    async def _outcome(self, answer: Awaitable[Answer], number: int) -> Answer:
        """What the handler returns, its failure turned into an answer."""
        try:
            return await answer
        except BodyAborted as error:
            log.debug("request %d: %s", number, error)
            self._transport.abort()
            return Hijacked()
        except Exception as error:
            return error_response(error, number)

    def _answered(self) -> None:
        """The answer is on its way: keep the connection if its framing is intact."""
        head = self._head
        self._head = None
        if head is None or self._transport.is_closing():
            return
        if not head.keep_alive or self._service.closing:
            if self._body.complete:
                self._state = _IDLE
                self._transport.close()
            else:
                self._linger()
            return
        if self._body.complete:
            self._state = _IDLE
        else:
            self._state = _SKIPPING
            self._skip()
        self._resume_reading()

    def _resume_reading(self) -> None:
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    @property
    def caller(self) -> Caller:
        """Who sent the request; see `request.Exchange`. Known at doors that have guards."""
        return self._client or Caller()

    # Bodies

    async def read_body(self) -> bytes:
        """Next piece of the body; see `request.Exchange`."""
        if self._continue:
            self._continue = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not self._body.complete:
            if self._buffer:
                try:
                    piece = self._body.take(self._buffer)
                except ProtocolError as error:
                    raise BodyAborted(str(error)) from None
                if len(self._buffer) < BUFFER // 2:
                    self._resume_reading()
                if piece:
                    return piece
                if self._body.complete:
                    break
            if self._eof:
                raise BodyAborted("the client went away before its request was complete")
            self._arrival = asyncio.get_running_loop().create_future()
            try:
                await self._arrival
            finally:
                self._arrival = None
        return b""

    def _settle_body(self) -> bool:
        """Before an answer: drop what the handler left of the body. False: the connection cannot be kept."""
        if self._body.complete:
            return True
        if self._continue:  # the client was never asked for it and may or may not send it
            return self._forsake()
        try:
            self._body.take(self._buffer)
        except ProtocolError:
            return self._forsake()
        if self._body.complete or 0 < (self._body.left or 0) <= SKIP:
            return True
        return self._forsake()

    def _forsake(self) -> bool:
        if self._head is not None:
            self._head.keep_alive = False
        return False

    def _skip(self) -> None:
        self._body.take(self._buffer)
        if self._body.complete:
            self._state = _IDLE
            self._advance()

    # Answers

    def _send(self, answer: Response, *, keep: bool) -> None:
        body = answer.body
        framing = b"Content-Length: %d\r\n" % len(body) if answer.status not in (204, 304) else b""
        head = self._head
        framing += self._connection_field(keep=keep)
        data = self._service.heads.head(answer.status, answer.content_type, answer.headers, framing)
        if head is None or head.method != "HEAD":
            data += body
        if log.isEnabledFor(logging.DEBUG):
            log.debug("answered with status %d", answer.status)
        self._transport.write(data)

    def _connection_field(self, *, keep: bool) -> bytes:
        head = self._head
        if head is None or not keep or not head.keep_alive or self._service.closing:
            return b"Connection: close\r\n"
        return b"Connection: keep-alive\r\n" if head.legacy else b""

    async def _stream(self, answer: Stream, number: int) -> None:
        """Send the head at once, then what the source yields, as fast as the client takes it."""
        source = answer.source
        try:
            if self._outlet.gone:
                return
            self._streaming = True
            await self._produce(answer)
        except asyncio.CancelledError:
            # Our own cancellation: the client is gone, or the server closes.
            self._transport.abort()
        except Exception as error:
            error_response(error, number)  # for the log; the head is out, so the client sees a cut stream
            self._transport.abort()
        finally:
            self._streaming = False
            close = getattr(source, "aclose", None)
            if close is not None:
                await close()

    async def _produce(self, answer: Stream) -> None:
        head = self._head
        assert head is not None
        if head.legacy:
            head.keep_alive = False
        self._continue = False  # too late for "100 Continue"
        framing = b"" if head.legacy else b"Transfer-Encoding: chunked\r\n"
        framing += self._connection_field(keep=True)
        self._transport.write(
            self._service.heads.head(answer.status, answer.content_type, answer.headers, framing)
        )
        await self._outlet.carry(answer.source, chunked=not head.legacy)
        self._settle_body()  # the source may have read the request's body, or some of it

    # Hijacking

    def hijack(self, head: bytes) -> HijackedStream:
        """Send the answer's head; see `request.Exchange`. Only once in a request."""
        if self._switched:
            raise RuntimeError("the connection was hijacked before")
        self._switched = True
        if not self._transport.is_closing():
            self._transport.write(head + b"\r\n")
        return HijackedStream(self)

    def hand_over(self) -> tuple[socket.socket, bytes]:
        """Leave the event loop with the connection open."""
        transport = self._transport
        if self._outlet.unsent:
            transport.abort()  # this client never read what it asked for
        if transport.is_closing():
            return dead_socket(), bytes(self._buffer)
        transport.pause_reading()
        self._unwatch()
        sock: socket.socket = transport.get_extra_info("socket").dup()
        self._state = _HANDED_OVER
        early = bytes(self._buffer)
        self._buffer.clear()
        transport.abort()  # closes the transport's own descriptor and nothing else
        sock.setblocking(True)
        return sock, early

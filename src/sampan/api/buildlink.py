"""A build's session as frames on a connection that has left HTTP; ``wire.sessions`` has the language.

Laws:
- Reading never waits for writing: what a channel does not take in time stops the whole connection once
  ``AHEAD`` bytes wait, and a pipe that lags by ``PIPE`` bytes is cut.
- When the connection is lost, every channel fails and ``lost`` is done: the build ends.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, cast

import msgspec

from sampan.engine.buildsession import Hello, entries_of
from sampan.engine.heldfiles import Entry
from sampan.errors import Failure, InvalidArgument
from sampan.wire import sessions

AHEAD = 4 << 20
"""Bytes received that wait for channels to take them."""
PIPE = 1 << 20
_LIST_LIMIT = 512 << 20
_PIECE = 1 << 18
_HELLO_SECONDS = 60.0


class Gone(Failure):
    """The client has gone away."""


class Refused(Failure):
    """The client has no answer."""


class Channel:
    """One question to the client and what flows on it; see ``buildsession.Pipe``."""

    def __init__(self, link: Link, number: int, *, bounded: bool) -> None:
        self._link = link
        self._number = number
        self._bounded = bounded
        self._pieces: list[bytes] = []
        self._waiting = 0
        self._arrival = asyncio.Event()
        self._ended = False
        self._failure: Failure | None = None
        self._tell: Callable[[int, int], None] | None = None
        self._noted = False
        self.size = (0, 0)

    # -- what comes

    def take(self, kind: int, payload: bytes) -> None:
        """A frame of the channel has come."""
        if kind == sessions.DATA:
            if self._bounded and self._waiting + len(payload) > PIPE:
                self._failure = Failure("the reader of a pipe of this session does not keep up")
            else:
                self._pieces.append(payload)
                self._waiting += len(payload)
                self._link.waits(len(payload))
        elif kind == sessions.END:
            self._ended = True
        elif kind == sessions.FAIL:
            self._failure = Refused(payload[:4096].decode(errors="replace"))
        elif kind == sessions.NOTE:
            self._note(payload)
        self._arrival.set()

    def _note(self, payload: bytes) -> None:
        self._noted = True
        try:
            rows, columns = (int(value) for value in json.loads(payload))
        except (ValueError, TypeError):
            return
        self.size = max(0, min(rows, 9999)), max(0, min(columns, 9999))
        if self._tell is not None:
            self._tell(*self.size)

    def lose(self, failure: Failure) -> None:
        if self._failure is None:
            self._failure = failure
        self._arrival.set()

    async def noted(self) -> None:
        """Wait for the client's first note. Raises what the channel failed with."""
        while not self._noted and not self._ended and self._failure is None:
            self._arrival.clear()
            await self._arrival.wait()
        if self._failure is not None:
            raise self._failure

    async def pieces(self) -> Sequence[bytes]:
        """All that has come; nothing at the end. Raises what the channel failed with."""
        while not self._pieces and not self._ended and self._failure is None:
            self._arrival.clear()
            await self._arrival.wait()
        if self._failure is not None:
            raise self._failure
        pieces, self._pieces = self._pieces, []
        self._forget()
        return pieces

    def _forget(self) -> None:
        self._link.waits(-self._waiting)
        self._waiting = 0

    async def read(self) -> bytes:
        return b"".join(await self.pieces())

    async def whole(self, limit: int) -> bytes:
        """Everything to the end. InvalidArgument if it is longer than ``limit``."""
        found = bytearray()
        while data := await self.read():
            found += data
            if len(found) > limit:
                raise InvalidArgument(f"the client's answer is longer than {limit} bytes")
        return bytes(found)

    # -- what goes

    async def write(self, data: bytes) -> None:
        for at in range(0, len(data), _PIECE):
            if self._failure is not None:
                raise self._failure
            await self._link.send(sessions.DATA, self._number, data[at : at + _PIECE])

    def end(self) -> None:
        self._link.send_soon(sessions.END, self._number)

    def on_resize(self, tell: Callable[[int, int], None]) -> None:
        self._tell = tell

    def close(self) -> None:
        """What still comes is dropped."""
        self._pieces.clear()
        self._forget()
        self._link.drop(self._number)


class Link(asyncio.Protocol):
    """The engine's end. ``hello`` is there once ``greeted`` has returned."""

    hello: Hello

    def __init__(self) -> None:
        self._splitter = sessions.Splitter()
        self._channels: dict[int, Channel] = {}
        self._next = 1
        self._waiting = 0
        self._paused = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._greeting: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.lost = asyncio.Event()

    @classmethod
    async def over(cls, sock: socket.socket, early: bytes) -> Link:
        """The session on a connection; owns it from now on."""
        sock.setblocking(False)
        _, protocol = await asyncio.get_running_loop().connect_accepted_socket(cls, sock)
        if early:
            protocol.data_received(early)
        return protocol

    async def greeted(self) -> None:
        """Wait for the client's greeting. InvalidArgument for none that makes sense."""
        try:
            data = await asyncio.wait_for(asyncio.shield(self._greeting), _HELLO_SECONDS)
            self.hello = msgspec.json.decode(data, type=Hello)
        except TimeoutError:
            raise InvalidArgument("the session did not begin in time") from None
        except msgspec.MsgspecError as error:
            raise InvalidArgument(f"malformed greeting of a session: {error}") from None

    def finish(self) -> None:
        """All was told."""
        self.send_soon(sessions.END, 0)

    async def close(self) -> None:
        """Send what is still to be sent, for a client that reads, and end the connection."""
        self._transport.close()
        try:
            await asyncio.wait_for(self.lost.wait(), 10)
        except TimeoutError:
            self._transport.abort()

    # ------------------------------------------------------------------ the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_PIECE)

    def connection_lost(self, _error: Exception | None) -> None:
        gone = Gone("the client has gone away")
        self.lost.set()
        self._writable.set()
        for channel in self._channels.values():
            channel.lose(gone)
        if not self._greeting.done():
            self._greeting.set_exception(gone)
            self._greeting.exception()  # nobody need look

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        try:
            for kind, number, payload in self._splitter.feed(data):
                if kind == sessions.HELLO and number == 0:
                    if not self._greeting.done():
                        self._greeting.set_result(payload)
                elif (channel := self._channels.get(number)) is not None:
                    channel.take(kind, payload)
        except sessions.MalformedFrame:
            self._transport.abort()

    def waits(self, size: int) -> None:
        """So many bytes more wait to be taken, or fewer."""
        self._waiting += size
        full = self._waiting > AHEAD
        if full != self._paused and not self._transport.is_closing():
            self._paused = full
            if full:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    # ------------------------------------------------------------------ questions

    async def send(self, kind: int, number: int, payload: bytes = b"") -> None:
        """Send a frame; returns when the client keeps up. Gone if there is none."""
        self.send_soon(kind, number, payload)
        await self._writable.wait()
        if self.lost.is_set():
            raise Gone("the client has gone away")

    def send_soon(self, kind: int, number: int, payload: bytes = b"") -> None:
        if not self._transport.is_closing():
            self._transport.write(sessions.frame(kind, number, payload))

    def drop(self, number: int) -> None:
        self._channels.pop(number, None)

    async def ask(self, service: str, *, bounded: bool = False, **arguments: Any) -> Channel:
        """Open a channel by asking on it."""
        number, self._next = self._next, self._next + 1
        channel = self._channels[number] = Channel(self, number, bounded=bounded)
        if self.lost.is_set():
            channel.lose(Gone("the client has gone away"))
        question = {"service": service, **arguments}
        await self.send(sessions.ASK, number, msgspec.json.encode(question))
        return channel

    async def entries(self, context: str, paths: Sequence[str]) -> list[Entry]:
        channel = await self.ask("list", context=context, paths=paths)
        try:
            data = await channel.whole(_LIST_LIMIT)
        finally:
            channel.close()
        return entries_of(data)

    async def digests(self, context: str, numbers: Sequence[int]) -> list[str]:
        channel = await self.ask("digests", context=context, numbers=numbers)
        size = sessions.DIGEST
        try:
            data = await channel.whole(len(numbers) * size)
        finally:
            channel.close()
        if len(data) != len(numbers) * size:
            raise InvalidArgument("the client sends other digests than it was asked for")
        found = [data[at : at + size] for at in range(0, len(data), size)]
        return [one.hex() if any(one) else "" for one in found]

    async def fetch(self, context: str, numbers: Sequence[int]) -> AsyncIterator[Sequence[bytes]]:
        channel = await self.ask("fetch", context=context, numbers=numbers)
        try:
            while pieces := await channel.pieces():
                yield pieces
        finally:
            channel.close()

    async def archive(self) -> AsyncIterator[bytes]:
        channel = await self.ask("archive")
        try:
            while data := await channel.read():
                yield data
        finally:
            channel.close()

    async def secret(self, identity: str) -> bytes | None:
        channel = await self.ask("secret", id=identity)
        try:
            return await channel.whole(sessions.SECRET_LIMIT)
        except Refused:
            return None
        finally:
            channel.close()

    async def agent(self, identity: str) -> Channel | None:
        """A connection to the agent, once the client says that it has it."""
        channel = await self.ask("agent", bounded=True, id=identity)
        try:
            await channel.noted()
        except Refused:
            channel.close()
            return None
        return channel

    async def output(self, number: int) -> Channel:
        return await self.ask("output", bounded=True, number=number)

    async def shell(self) -> Channel:
        channel = await self.ask("shell", bounded=True)
        await channel.noted()
        return channel

    async def tell(self, message: dict[str, Any]) -> None:
        await self.send(sessions.NOTE, 0, msgspec.json.encode(message))

"""The sending side of a connection: how fast its client takes what it is given.

Law: unsent bytes exist only while `unsent` is set (the transport's high-water mark is 0), and nothing new is
produced before the client has taken what it was given.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

from sampan.api.bodies import OutgoingBody
from sampan.errors import Internal
from sampan.images.model import Span
from sampan.wire.http import LAST_CHUNK


class Outlet:
    """What ``transport`` sends. ``gone``: the client will receive no more."""

    __slots__ = ("_drained", "_transport", "gone", "unsent")

    def __init__(self, transport: asyncio.Transport) -> None:
        transport.set_write_buffer_limits(high=0)
        self._transport = transport
        self._drained: asyncio.Future[None] | None = None  # a writer waits for the client to take bytes
        self.gone = False
        self.unsent = False

    def resume(self) -> None:
        """The client has taken everything."""
        self.unsent = False
        self._wake()

    def lose(self) -> None:
        """The connection is lost: whoever waits for the client waits no more."""
        self.gone = True
        self._wake()

    def _wake(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    async def carry(self, source: AsyncIterator[bytes | Span], *, chunked: bool) -> None:
        """Send what the source yields, as fast as the client takes it, and the end of the body."""
        loop = asyncio.get_running_loop()
        body = OutgoingBody(chunked=chunked)
        async for piece in source:
            if isinstance(piece, Span):
                self._flush(body)
                await self._send_file(piece, chunked=chunked)
                continue
            if not piece:
                continue
            if body.empty:
                loop.call_soon(self._flush, body)
            if body.add(piece):
                self._flush(body)
                await asyncio.sleep(0)
            while self.unsent and not self.gone:
                await self._until_drained()
        last = body.take()
        if chunked:
            last += LAST_CHUNK
        if last:
            self._transport.write(last)

    async def _send_file(self, span: Span, *, chunked: bool) -> None:
        """Have the kernel send it, as one chunk. Internal if the file is shorter than it was said to be."""
        if chunked:
            self._transport.write(b"%x\r\n" % span.size)
        while self.unsent and not self.gone:
            await self._until_drained()
        if self.gone or self._transport.is_closing():
            return
        with os.fdopen(os.dup(span.fd), "rb", buffering=0) as file:
            try:
                loop = asyncio.get_running_loop()
                sent = await loop.sendfile(self._transport, file, 0, span.size)
            except OSError:  # the client hung up
                self.gone = True
                self._transport.abort()
                return
        if sent != span.size:
            raise Internal(f"a file has {sent} bytes, expected {span.size}")
        if chunked:
            self._transport.write(b"\r\n")

    def _flush(self, body: OutgoingBody) -> None:
        """Write what a stream has gathered (the loop calls again: there may be nothing left)."""
        if not body.empty and not self.gone:
            self._transport.write(body.take())

    async def _until_drained(self) -> None:
        self._drained = asyncio.get_running_loop().create_future()
        try:
            await self._drained
        finally:
            self._drained = None

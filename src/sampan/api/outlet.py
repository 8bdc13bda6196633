"""The sending side of a connection: how fast its client takes what it is given.

Law: unsent bytes exist only while `unsent` is set (the transport's high-water mark is 0), and nothing new is
produced before the client has taken what it was given.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from sampan.api.bodies import OutgoingBody
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

    async def carry(self, source: AsyncIterator[bytes], *, chunked: bool) -> None:
        """Send what the source yields, as fast as the client takes it, and the end of the body."""
        loop = asyncio.get_running_loop()
        body = OutgoingBody(chunked=chunked)
        async for piece in source:
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

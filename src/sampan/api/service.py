"""What all connections of a server share, and how they end together."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sampan.api.hangups import Hangups
from sampan.api.head import ResponseHeads
from sampan.api.routing import Router

if TYPE_CHECKING:
    from sampan.api.connection import Connection


@dataclass(slots=True, kw_only=True)
class Service:
    """``engine`` is handed to every handler untouched; ``requests`` numbers them for the log."""

    engine: Any
    router: Router
    heads: ResponseHeads = field(default_factory=ResponseHeads)
    hangups: Hangups = field(default_factory=Hangups)
    connections: set[Connection] = field(default_factory=set)
    requests: int = 0
    closing: bool = False

    async def drain(self, grace: float) -> None:
        """End every connection: idle ones and streams at once, the others within ``grace`` seconds."""
        self.closing = True
        for connection in tuple(self.connections):
            connection.end()
        tasks = [task for connection in self.connections if (task := connection.task) is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=grace)
        for connection in tuple(self.connections):
            connection.cut()
        await turns(2)  # ended transports close their descriptors
        self.hangups.close()


async def turns(number: int) -> None:
    """Let the event loop do what is due, ``number`` times."""
    for _ in range(number):
        await asyncio.sleep(0)

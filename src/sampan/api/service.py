"""What all connections of a server share, and how they end together."""

from __future__ import annotations

import asyncio
import enum
import resource
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sampan.api.hangups import Hangups
from sampan.api.head import ResponseHeads
from sampan.api.routing import Router

if TYPE_CHECKING:
    from sampan.api.connection import Connection
    from sampan.api.doors import Door

LINGERING = 64
"""How many connections beyond a door's share are told so; more are cut without a word."""


class Entry(enum.Enum):
    """What becomes of a new connection."""

    SERVED = enum.auto()
    REFUSED = enum.auto()
    CUT = enum.auto()


def descriptors_share() -> int:
    """A quarter of the descriptors that this process may have: what clients of one door may hold of them."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4


@dataclass(slots=True, kw_only=True)
class Service:
    """``engine`` is handed to every handler untouched; ``requests`` numbers them for the log.

    ``share`` bounds the connections of each door, so that the clients of one cannot shut the others out.
    """

    engine: Any
    router: Router
    share: int
    heads: ResponseHeads = field(default_factory=ResponseHeads)
    hangups: Hangups = field(default_factory=Hangups)
    connections: set[Connection] = field(default_factory=set)
    present: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    closing: bool = False

    def enter(self, connection: Connection, door: Door) -> Entry:
        """Take a new connection in; whatever comes of it, it is to ``leave``."""
        self.connections.add(connection)
        self.present[door.name] += 1
        beyond = self.present[door.name] - self.share
        if beyond <= 0:
            return Entry.SERVED
        return Entry.REFUSED if beyond <= LINGERING else Entry.CUT

    def leave(self, connection: Connection, door: Door) -> None:
        """The connection is closed, or has become a stream of its own."""
        self.connections.discard(connection)
        self.present[door.name] -= 1

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

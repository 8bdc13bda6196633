"""Who is at a container's files when it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.fakes.engine import World

from sampan.engine.archives import Archives
from sampan.engine.visitors import Visitors
from sampan.runtime.visits import Gone


class Visit:
    """A visitor that finds the container ended if ``gone``, and else takes what it is given."""

    def __init__(self, gone: bool) -> None:
        self._gone = gone
        self.taken = b""
        self.closed = False

    async def answer(self) -> dict[str, Any]:
        if self._gone:
            raise Gone("[Errno 3] the container has ended")
        return {"stat": {}}

    async def write(self, data: bytes) -> bool:
        self.taken += data
        return not self._gone

    async def read(self) -> bytes:
        return b""

    def end_of_data(self) -> None: ...

    async def aclose(self) -> None:
        self.closed = True


class Visits:
    def __init__(self, world: World, container: str) -> None:
        self._world = world
        self._container = container
        self.begun: list[Visit] = []

    async def begin(self, container_id: str, op: str, *, pid: int = 0, **_arguments: Any) -> Visit:
        """The container ends when the first visitor is about to enter it."""
        assert (container_id, bool(op)) == (self._container, True)
        if pid:
            self._world.task(self._container).end(0)
        self.begun.append(Visit(gone=bool(pid)))
        return self.begun[-1]


@pytest.mark.parametrize("way", ["in", "out"])
async def test_who_finds_the_container_ended_looks_beside_it(world: World, way: str) -> None:
    web = await world.run("sleep")
    visits = Visits(world, web)
    visitors = Visitors(
        store=world.store,
        snapshots=world.snapshots,
        volumes=world.volumes,
        visits=visits,
    )
    archives = Archives(
        store=world.store,
        visitors=visitors,
        visits=visits,
        snapshots=world.snapshots,
        events=world.events,
    )
    if way == "in":
        await archives.write(web, "/tmp", _body())
        assert visits.begun[-1].taken == b"an archive, no compression"
    else:
        archive = await archives.export(web)
        assert [piece async for piece in archive] == []
    first, second = visits.begun
    assert first.closed
    assert second.closed
    assert first.taken == b""


async def _body() -> AsyncIterator[bytes]:
    yield b"an archive, no compression"

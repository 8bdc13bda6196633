"""Cache mounts of RUN taken elsewhere and brought back, as archives.

Laws: an archive is packed and unpacked by a process that sees nothing but the mount; while it goes out no
step has the mount; what comes in is there whole or not at all, and takes the place of nothing.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from sampan.engine.archives import pour
from sampan.engine.volumecopies import VolumeArchive
from sampan.errors import Conflict, InvalidArgument, NotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterable

    from sampan.engine.cachemounts import CacheMount, CacheMounts
    from sampan.engine.ports import Visits

_MODE = 0o755


class CacheMountCopies:
    """The use cases. A mount is called by its id, or by the name that ``builder prune`` gives it."""

    def __init__(self, mounts: CacheMounts, visits: Visits) -> None:
        self._mounts = mounts
        self._visits = visits

    async def all(self) -> list[CacheMount]:
        """Every one, by id."""
        return sorted(await self._mounts.all(), key=lambda mount: mount.identity)

    async def export(self, identity: str) -> VolumeArchive:
        """An archive of all that is in it, its own top directory included; NotFound if it is not there."""
        async with AsyncExitStack() as stack:
            path = await stack.enter_async_context(self._mounts.alone(self._named(identity)))
            visit = await self._visits.begin("", "tree", directory=path, flow="out")
            stack.push_async_callback(visit.aclose)
            await visit.answer()
            return VolumeArchive(visit, stack.pop_all())
        raise AssertionError("unreachable")

    async def load(self, identity: str, body: AsyncIterable[bytes]) -> None:
        """A new one of an archive, compressed or not. Conflict if there is one of that id."""
        if not identity:
            raise InvalidArgument("a cache mount has an id")
        if identity in self._mounts:
            raise Conflict(f"cache mount {identity} is there already: remove it first (builder prune)")

        async def fill(place: str) -> None:
            visit = await self._visits.begin("", "fill", directory=place, flow="in")
            try:
                await visit.answer()
                await pour(body, visit)
            finally:
                await visit.aclose()

        await self._mounts.made(identity, fill, _MODE)

    def _named(self, identity: str) -> str:
        name = self._mounts.name_of(identity)
        if name is None:
            raise NotFound(f"no such cache mount: {identity}")
        return name

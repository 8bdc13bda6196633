"""The container use cases, gathered for the api. Each concern lives in a module of its own.

References are a name (with or without its slash), an id, or a prefix that only one id has; one that names
nothing is NotFound("No such container: …").
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, TypeVar

from sampan.engine.model import (
    Container,
    ContainerConfig,
    Created,
    ExitStatus,
    Filters,
    HostConfig,
    ListQuery,
    LogQuery,
    NetworkingConfig,
    Pruned,
)
from sampan.engine.ports import TakeStream

if TYPE_CHECKING:
    from sampan.engine.creation import Creation
    from sampan.engine.links import Links
    from sampan.engine.logs import LogStream
    from sampan.engine.lookups import Lookups
    from sampan.engine.removal import Removal
    from sampan.engine.running import Running
    from sampan.engine.streams import Streams
    from sampan.engine.updates import Updates
    from sampan.engine.waits import Waits
    from sampan.images.model import Image
    from sampan.sandbox.messages import AttachOptions


T = TypeVar("T")


class Containers:
    """Delegates. A change that was begun is finished, also when the caller goes away meanwhile."""

    def __init__(
        self,
        *,
        creation: Creation,
        running: Running,
        removal: Removal,
        links: Links,
        lookups: Lookups,
        waits: Waits,
        updates: Updates,
        streams: Streams,
    ) -> None:
        self._creation = creation
        self._running = running
        self._removal = removal
        self._links = links
        self._lookups = lookups
        self._waits = waits
        self._updates = updates
        self._streams = streams
        self._changes: set[asyncio.Task[object]] = set()

    async def _to_the_end(self, work: Coroutine[object, object, T]) -> T:
        task = asyncio.get_running_loop().create_task(work)
        self._changes.add(task)
        task.add_done_callback(self._changed)
        return await asyncio.shield(task)

    def _changed(self, task: asyncio.Task[object]) -> None:
        self._changes.discard(task)
        # Read here too: the caller may be gone, and the failure was theirs to hear.
        if not task.cancelled():
            task.exception()

    @property
    def being_removed(self) -> int:
        """How many containers are gone for everybody, and their remains not yet."""
        return self._removal.unfinished

    async def settle(self) -> None:
        """Wait for the changes under way; the daemon is going down."""
        while self._changes:
            await asyncio.wait(self._changes)
        await self._removal.settle()

    async def create(
        self,
        name: str | None,
        config: ContainerConfig,
        host: HostConfig,
        networking: NetworkingConfig,
        *,
        platform: tuple[str, str, str] | None = None,
        over: Image | None = None,
    ) -> Created:
        """Record a container; nothing runs yet. Kept on disk when it returns, unless ``auto_remove``.

        ``over`` makes it a step of a build; see ``Creation.create``.

        Raises InvalidArgument, NotFound (image), Conflict (name) or NotImplemented, and then has changed
        nothing.
        """
        return await self._to_the_end(self._creation.create(name, config, host, networking, platform, over))

    async def start(self, ref: str) -> bool:
        """Run it; False when it runs already. A program that cannot be run is InvalidArgument."""
        return await self._to_the_end(self._running.start(ref))

    async def stop(self, ref: str, *, signal: str | None = None, timeout: int | None = None) -> bool:
        """Ask it to end, then kill it after ``timeout`` seconds (-1: never); False when not running."""
        return await self._to_the_end(self._running.stop(ref, signal=signal, timeout=timeout))

    async def restart(self, ref: str, *, signal: str | None = None, timeout: int | None = None) -> None:
        """Stop it if it runs, then start it. A ``--rm`` container is not removed in between."""
        await self._to_the_end(self._running.restart(ref, signal=signal, timeout=timeout))

    async def kill(self, ref: str, signal: str | None = None) -> None:
        """Send a signal (SIGKILL by default); for SIGKILL, return when the container has ended."""
        await self._to_the_end(self._running.kill(ref, signal))

    async def update(self, ref: str, asked: HostConfig) -> Sequence[str]:
        """Change its limits and its restart policy, also while it runs; returns warnings."""
        return await self._to_the_end(self._updates.update(ref, asked))

    async def pause(self, ref: str) -> None:
        await self._to_the_end(self._running.pause(ref))

    async def unpause(self, ref: str) -> None:
        await self._to_the_end(self._running.unpause(ref))

    async def resize(self, ref: str, height: int, width: int) -> None:
        """Set the size of a running container's terminal, in characters."""
        await self._running.resize(ref, height, width)

    async def remove(self, ref: str, *, force: bool = False, volumes: bool = False) -> None:
        """Remove it; ``force`` kills it first; ``volumes`` removes its anonymous volumes as well."""
        await self._to_the_end(self._removal.remove(ref, force=force, volumes=volumes))

    def remove_link(self, ref: str) -> None:
        """Forget the link ``PARENT/ALIAS``; both containers stay."""
        self._links.remove(ref)

    def link_names(self) -> dict[str, list[str]]:
        """Further names of containers, which links gave them, by id."""
        return self._links.names()

    async def remove_temporary(self) -> None:
        """Remove what builds left that a killed daemon was at."""
        await self._removal.remove_temporary()

    async def prune(self, filters: Filters) -> Pruned:
        """Remove every container that does not run and passes ``filters`` (until, label, label!)."""
        return await self._to_the_end(self._removal.prune(filters))

    async def rename(self, ref: str, name: str) -> None:
        await self._to_the_end(self._creation.rename(ref, name))

    def get(self, ref: str) -> Container:
        return self._links.shown(self._lookups.get(ref))

    async def list(self, query: ListQuery) -> list[Container]:
        """Newest first."""
        return await self._lookups.list(query)

    def wait(self, ref: str, condition: str = "not-running") -> asyncio.Future[ExitStatus]:
        """A future that is registered when this returns. ``condition``: not-running, next-exit, removed."""
        return self._waits.wait(ref, condition)

    def logs(self, ref: str, query: LogQuery) -> LogStream:
        """The log, oldest first; refuses before it returns. With ``follow``, ends with the container.

        The stream yields lists of records, or of texts by ``texts()``; ``aclose()`` it.
        """
        return self._streams.logs(ref, query)

    async def attach(self, ref: str, options: AttachOptions, take: TakeStream) -> None:
        """Join the caller's connection to the container's streams, now or at its next start."""
        await self._streams.attach(ref, options, take)

"""Volumes copied: cloned, kept as they are (snapshots), exported and imported. Docker has no such thing.

Theory: a copy is made beside the volume and has its name once it is whole. Where the file system can, files
share their blocks until one of them changes. Containers that write to the volume stand still while a copy is
made, but not for long: most is copied before, while they run, and only what has changed since then while they
stand still (``volumes.copy``).

Laws: a copy is of one moment, unless that was not wished; no container stands still for longer than was
allowed; what a crash or a failure leaves of a copy is never seen; an archive is packed and unpacked by a
process that sees nothing but the volume.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import threading
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from sampan.engine.archives import pour
from sampan.engine.model import Status
from sampan.engine.model.volumes import ANONYMOUS_LABEL, SNAPSHOT_LABEL, Volume
from sampan.errors import Conflict, Internal, Unavailable
from sampan.volumes.copy import Earlier, Places, copy_tree
from sampan.volumes.tree import remove_tree, sync_file_system

if TYPE_CHECKING:
    from sampan.engine.ports import Visit, Visits
    from sampan.engine.stillness import Stillness
    from sampan.engine.store import ContainerStore, Instance
    from sampan.engine.volumes import Volumes
    from sampan.volumes.local import LocalVolumes

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_MOVED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE)
_CLOCK = 1_000_000_000  # nanoseconds by which the times of files may lag behind, and more


class Manner(msgspec.Struct, frozen=True, kw_only=True):
    """``pause``: whether containers stand still, for at most ``limit`` seconds."""

    pause: bool = True
    limit: float = 10.0


class VolumeCopies:
    """The use cases."""

    def __init__(
        self,
        *,
        volumes: Volumes,
        local: LocalVolumes,
        store: ContainerStore,
        stillness: Stillness,
        visits: Visits,
    ) -> None:
        self._volumes = volumes
        self._local = local
        self._store = store
        self._stillness = stillness
        self._visits = visits

    async def clone(self, name: str, new: str, manner: Manner) -> Volume:
        """A local volume ``new`` with the labels and what is in the volume ``name`` now."""
        labels = self._volumes.get(name).labels
        kept = {
            key: value
            for key, value in (labels or {}).items()
            if key not in (ANONYMOUS_LABEL, SNAPSHOT_LABEL)
        }
        return await self._copy(name, new, kept if labels is not None else None, manner)

    async def snapshot(self, name: str, new: str, manner: Manner) -> Volume:
        """A volume that stays as the volume ``name`` is now: containers mount it read-only.

        Without a name it has the volume's, with the time.
        """
        labels = {**(self._volumes.get(name).labels or {}), SNAPSHOT_LABEL: name}
        labels.pop(ANONYMOUS_LABEL, None)
        return await self._copy(name, new or self._dated(name), labels, manner)

    async def load(self, name: str, body: AsyncIterable[bytes], labels: Mapping[str, str] | None) -> Volume:
        """A new local volume of an archive, compressed or not. InvalidArgument names the bad member."""

        async def fill(data: str) -> None:
            visit = await self._visits.begin("", "fill", directory=data, flow="in")
            try:
                await visit.answer()
                await pour(body, visit)
            finally:
                await visit.aclose()

        return await self._volumes.made(name, labels, fill)

    async def export(self, name: str, manner: Manner) -> VolumeArchive:
        """An archive of all that is in the volume, its own top directory included."""
        async with AsyncExitStack() as stack:
            source = await stack.enter_async_context(self._open(name))
            if manner.pause and self._writers(name):
                place = stack.enter_context(self._local.copying())
                copied = f"{place}/data"
                os.mkdir(copied, 0o700)
                await self._fill(name, source, copied, manner)
                source = copied
            visit = await self._visits.begin("", "tree", directory=source, flow="out")
            stack.push_async_callback(visit.aclose)
            await visit.answer()
            return VolumeArchive(visit, stack.pop_all())
        raise AssertionError("unreachable")

    def _dated(self, name: str) -> str:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        names = {volume.name for volume in self._volumes.list()}
        wanted, number = f"{name}-{stamp}", 2
        while wanted in names:
            wanted, number = f"{name}-{stamp}-{number}", number + 1
        return wanted

    async def _copy(self, name: str, new: str, labels: Mapping[str, str] | None, manner: Manner) -> Volume:
        async def fill(data: str) -> None:
            async with self._open(name) as source:
                await self._fill(name, source, data, manner)

        return await self._volumes.made(new, labels, fill)

    @asynccontextmanager
    async def _open(self, name: str) -> AsyncIterator[str]:
        """The directory of the volume's data, which is there while the context lasts."""
        with self._volumes.busy(name):
            holder = f"copy-{secrets.token_hex(8)}"
            try:
                yield await self._volumes.hold(name, holder)
            finally:
                await self._volumes.release(holder)

    async def _fill(self, name: str, source: str, data: str, manner: Manner) -> None:
        """Copy what is in ``source`` into the empty directory ``data``."""
        begun = time.time_ns()
        try:
            if manner.pause:
                await asyncio.to_thread(sync_file_system, source)
            try:
                places = await _in_thread(source, data)
            except OSError as error:
                # What was replaced under the copy's eyes is copied once nobody moves any more.
                if error.errno not in _MOVED or not manner.pause or not self._written(name, begun):
                    raise
                places = {}
            if not manner.pause or not self._written(name, begun):
                return
            first = f"{os.path.dirname(data)}/first"
            os.rename(data, first)
            os.mkdir(data, 0o700)
            await self._copy_still(name, source, data, (first, places, begun - _CLOCK), manner)
            await asyncio.to_thread(remove_tree, first)
        except OSError as error:
            where = f": {error.filename}" if isinstance(error.filename, str) else ""
            if error.errno in _MOVED:
                raise Conflict(f"volume {name}{where}: changes while it is copied") from error
            raise Internal(f"copying volume {name}{where}: {error.strerror or error}") from error

    async def _copy_still(
        self, name: str, source: str, data: str, earlier: tuple[str, Places, int], manner: Manner
    ) -> None:
        late = threading.Event()
        copying = None
        try:
            async with AsyncExitStack() as stack:
                deadline = asyncio.get_running_loop().time() + manner.limit
                for instance in self._writers(name):
                    await stack.enter_async_context(self._stillness.of(instance))
                copying = asyncio.ensure_future(_in_thread(source, data, late, earlier))
                left = deadline - asyncio.get_running_loop().time()
                await asyncio.wait((copying,), timeout=max(0.0, left))
                if not copying.done():
                    late.set()
        finally:
            late.set()
            if copying is not None:
                await asyncio.wait((copying,))
        try:
            copying.result()
        except _LateError as error:
            raise Unavailable(
                f"volume {name}: what its containers change cannot be copied while they stand still for "
                f"{manner.limit:g}s; allow more, or do without a pause"
            ) from error

    def _users(self, name: str) -> Sequence[Instance]:
        return [
            instance
            for instance in self._store
            if any(
                point.type == "volume" and point.name == name and point.rw
                for point in instance.container.mounts
            )
        ]

    def _writers(self, name: str) -> Sequence[Instance]:
        """The running containers that may write to the volume."""
        return [instance for instance in self._users(name) if instance.state.status is Status.RUNNING]

    def _written(self, name: str, begun: int) -> bool:
        """Whether a container may have written to the volume since then."""
        return any(
            instance.state.status is Status.RUNNING
            or max(instance.state.started_at, instance.state.finished_at) >= begun
            for instance in self._users(name)
        )


class VolumeArchive:
    """An archive on its way out: iterate over its bytes, then ``aclose`` it."""

    def __init__(self, visit: Visit, stack: AsyncExitStack) -> None:
        self._visit = visit
        self._stack = stack

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        data = await self._visit.read()
        if data:
            return data
        await self._visit.answer()
        await self.aclose()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        await self._stack.aclose()


class _LateError(Exception):
    """Nobody waits for the copy any more."""


async def _in_thread(
    source: str,
    data: str,
    late: threading.Event | None = None,
    earlier: tuple[str, Places, int] | None = None,
) -> Places:
    """Copy in a thread. Cancelled, it ends soon, and is waited for."""
    over = late or threading.Event()

    def goes_on() -> None:
        if over.is_set():
            raise _LateError

    work = asyncio.ensure_future(asyncio.to_thread(_copied, source, data, goes_on, earlier))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        over.set()
        await asyncio.wait((work,))
        raise


def _copied(
    source: str, data: str, goes_on: Callable[[], object], earlier: tuple[str, Places, int] | None
) -> Places:
    with ExitStack() as stack:

        def opened(path: str) -> int:
            fd = os.open(path, _DIRECTORY)
            stack.callback(os.close, fd)
            return fd

        before = None
        if earlier is not None:
            first, places, since = earlier
            before = Earlier(root_fd=opened(first), places=places, since=since)
        return copy_tree(opened(source), opened(data), goes_on=goes_on, earlier=before)

"""A container's files from outside: ``cp`` both ways, ``export`` and ``diff``.

Paths are the container's, absolute or not, and read from its root; a trailing ``/`` or ``/.`` is kept, since
it says that a directory is meant. Errors are in Docker's words; where Docker lets a system call's error
through as a 500, it is the request's fault here.
"""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import AsyncIterable, AsyncIterator
from typing import TYPE_CHECKING

import msgspec

from sampan.errors import Failure, InvalidArgument, NotFound
from sampan.wire import compression

if TYPE_CHECKING:
    from sampan.engine.events import Events
    from sampan.engine.ports import Snapshots, Visit, Visits
    from sampan.engine.store import ContainerStore
    from sampan.engine.visitors import Stay, Visitors


class PathStat(msgspec.Struct, frozen=True, kw_only=True):
    """What lies at a path. ``mode`` are the bits of Go's fs.FileMode, ``mtime`` nanoseconds since the epoch,
    ``target`` where a symbolic link leads in the end."""

    name: str
    size: int
    mode: int
    mtime: int
    target: str


class Change(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """``kind``: 0 modified, 1 added, 2 deleted."""

    path: str
    kind: int


class Archive:
    """An archive on its way out: iterate over its bytes, then ``aclose`` it.

    Raises Internal when it breaks off, so that nobody takes a part for the whole.
    """

    def __init__(self, stay: Stay) -> None:
        self._stay = stay

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        visit = self._stay.at_work
        data = await visit.read()
        if data:
            return data
        await visit.answer()
        await self.aclose()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        await self._stay.aclose()


class Archives:
    """The use cases."""

    def __init__(
        self,
        *,
        store: ContainerStore,
        visitors: Visitors,
        visits: Visits,
        snapshots: Snapshots,
        events: Events,
    ) -> None:
        self._store = store
        self._visitors = visitors
        self._visits = visits
        self._snapshots = snapshots
        self._events = events

    async def stat(self, ref: str, path: str) -> PathStat:
        """What lies at ``path``, a last symbolic link not followed."""
        try:
            stay = await self._visitors.send(ref, "stat", path=clean(path))
        except NotFound as error:
            raise self._missing(error, ref, path) from error
        await stay.aclose()
        return PathStat(**stay.said["stat"])

    async def read(self, ref: str, path: str) -> tuple[PathStat, Archive]:
        """What lies at ``path`` and an archive of it, named by the path's last component."""
        try:
            stay = await self._visitors.send(ref, "pack", flow="out", path=clean(path))
        except NotFound as error:
            raise self._missing(error, ref, path) from error
        self._events.container(stay.container, "archive-path", path=path)
        return PathStat(**stay.said["stat"]), Archive(stay)

    async def write(
        self,
        ref: str,
        path: str,
        body: AsyncIterable[bytes],
        *,
        own_ids: bool = False,
        keep_kinds: bool = False,
    ) -> None:
        """Extract an archive, compressed or not, into the directory at ``path``.

        ``own_ids``: all of it is to belong to the container's user, if it has one. ``keep_kinds``: no
        directory is replaced by something else, nor the other way round.
        """
        container = self._store.find(ref).container
        volumes = [point.destination for point in container.mounts]
        owner = container.config.user if own_ids else ""
        try:
            stay = await self._visitors.send(
                ref,
                "extract",
                flow="in",
                path=clean(path),
                owner=owner,
                keep_kinds=keep_kinds,
                volumes=volumes,
            )
            try:
                await pour(body, stay.at_work)
            finally:
                await stay.aclose()
        except NotFound as error:
            raise self._missing(error, ref, path) from error
        self._events.container(stay.container, "extract-to-dir", path=path)

    async def export(self, ref: str) -> Archive:
        """An archive of the whole root, without what is mounted in it."""
        try:
            stay = await self._visitors.send(ref, "export", flow="out")
        except NotFound as error:
            raise self._gone(error, ref) from error
        self._events.container(stay.container, "export")
        return Archive(stay)

    async def changes(self, ref: str) -> list[Change]:
        """What differs from the image, parents first."""
        container = self._store.find(ref).container
        root = self._snapshots.mounts(container.id)
        visit = await self._visits.begin(container.id, "changes", root=root, flow="out")
        try:
            await visit.answer()
            found = bytearray()
            while data := await visit.read():
                found += data
            await visit.answer()
        except NotFound as error:
            raise self._gone(error, ref) from error
        finally:
            await visit.aclose()
        records = found.split(b"\0")[:-1]
        return [Change(path=record[1:].decode("utf-8", "replace"), kind=record[0] - 48) for record in records]

    def _gone(self, error: NotFound, ref: str) -> Failure:
        """Files are missed when their container was removed meanwhile; who asked hears of that."""
        try:
            self._store.find(ref)
        except Failure as failure:
            return failure
        return error

    def _missing(self, error: NotFound, ref: str, path: str) -> NotFound:
        """The visitor names no container; the store's own refusal stays as it is."""
        try:
            self._store.find(ref)
        except Failure:
            return error
        return NotFound(f"Could not find the file {path} in container {ref}")


def clean(path: str) -> str:
    """Absolute and without detours, but with what the end says of a directory."""
    if not path:
        raise InvalidArgument("bad parameter: pathcannot be empty")
    if "\0" in path:
        raise InvalidArgument(f"lstat {path.partition(chr(0))[0]}: invalid argument")
    whole = "/" + posixpath.normpath("/" + path).lstrip("/")
    last = path.rpartition("/")[2]
    if last == ".":
        return whole.rstrip("/") + "/."
    return whole.rstrip("/") + "/" if path.endswith("/") else whole


async def pour(body: AsyncIterable[bytes], visit: Visit) -> None:
    """Hand the archive, compressed or not, to the visitor and hear that it is in place.

    What it fails with, as on a full disk, is raised at once, however long the rest of the archive takes.
    """
    answering = asyncio.ensure_future(visit.answer())
    sending = asyncio.ensure_future(_send(body, visit))
    try:
        await asyncio.wait((answering, sending), return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            sending.result()
        await answering
        await sending
    finally:
        for task in (answering, sending):
            task.cancel()
        await asyncio.gather(answering, sending, return_exceptions=True)


async def _send(body: AsyncIterable[bytes], visit: Visit) -> None:
    async for piece in _plain(body):
        if not await visit.write(piece):
            break  # it says why
    visit.end_of_data()


async def _plain(body: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The archive without its compression, whose kind its first bytes tell."""
    head = b""
    decompressor: compression.Decompressor | None = None
    begun = False
    async for data in body:
        if not begun:
            data = head = head + data
            if len(head) < compression.MAGIC_LENGTH:
                continue
            begun = True
            if kind := compression.detect(head):
                decompressor = compression.Decompressor(kind)
        if decompressor is None:
            yield data
            continue
        pieces = iter(decompressor.feed(data))
        while piece := await asyncio.to_thread(next, pieces, b""):
            yield piece
    if not begun and head:
        yield head
    if decompressor is not None:
        decompressor.finish()

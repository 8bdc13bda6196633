"""Load and import: from a stream of bytes to kept images.

Law: all images of an archive become visible together, after every layer is unpacked and every digest was
checked; whatever goes wrong before leaves nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from sampan.errors import InvalidArgument
from sampan.images import layout
from sampan.images.blobs import Pace, Part
from sampan.images.catalog import Catalog, NewImage
from sampan.images.directories import Early
from sampan.images.holds import Hold
from sampan.images.indexes import Platform
from sampan.images.layers import Archive
from sampan.images.model import Image, Progress
from sampan.images.spool import Spool
from sampan.spec import digest as digests
from sampan.spec import image as documents
from sampan.spec.digest import Digest
from sampan.spec.reference import Reference
from sampan.wire import compression

T = TypeVar("T")

_BATCH = 1 << 21  # bytes handed to the writing thread at once
_WORTHWHILE = 1 << 18  # bytes from which a file is a layer rather than a document


async def load(
    catalog: Catalog,
    body: AsyncIterable[bytes],
    report: Callable[[Progress], None],
    keep: Callable[[Sequence[NewImage], Hold], Awaitable[list[Image]]],
    wanted: Sequence[Platform] = (),
) -> list[tuple[NewImage, Image]]:
    """Load an archive of images, of the platforms ``wanted``, and answer with those that are now kept.

    ``keep`` is ``catalog.add``, or does it with more around. InvalidArgument for a bad archive, NotFound for
    one in which an image is for other platforms; nothing of it is kept then.
    """
    with catalog.blobs.workspace() as workspace:
        ahead = _Ahead(catalog)
        spool = Spool(workspace, ahead.begun if catalog.layers.directories.follows else None)
        try:
            try:
                await pump(body, spool.feed)
                await asyncio.to_thread(spool.finish)
            finally:
                spool.close()
            found = await asyncio.to_thread(layout.read, spool)
            if wanted:
                found = layout.on_platforms(found, wanted)
            return await _keep(catalog, found, ahead, report, keep)
        finally:
            await asyncio.shield(ahead.end())


async def _keep(
    catalog: Catalog,
    found: Sequence[layout.Found],
    ahead: _Ahead,
    report: Callable[[Progress], None],
    keep: Callable[[Sequence[NewImage], Hold], Awaitable[list[Image]]],
) -> list[tuple[NewImage, Image]]:
    """Make layers and images of what was found in an archive."""

    def tell(diff_id: Digest, archive: Archive) -> None:
        size, short = archive.size, digests.short(diff_id)
        report(Progress(status="Loading layer", id=short, current=size, total=size))

    async def work(hold: Hold) -> list[tuple[NewImage, Image]]:
        new = []
        for one in found:
            await catalog.layers.obtain_chain(hold, _steps(one, ahead), tell)
            new.append(
                NewImage(raw=one.document.raw, names=one.names, manifest=one.manifest, index=one.index)
            )
        return list(zip(new, await keep(new, hold), strict=True))

    return await _or_sweep(catalog, work)


class _Ahead:
    """Unpacks what looks like a layer while the archive that it is in still arrives."""

    def __init__(self, catalog: Catalog) -> None:
        self._layers = catalog.layers
        self._loop = asyncio.get_running_loop()
        self._here = frozenset(digests.hex_of(layer.blob) for layer in catalog.layers)
        self._begun: dict[str, Early] = {}

    def begun(self, name: str, size: int, part: Part) -> None:
        """A file begins to arrive; called from the thread that writes it."""
        if size < _WORTHWHILE or name.rpartition("/")[2] in self._here:
            return
        self._loop.call_soon_threadsafe(self._begin, part, compression.detect(part.head), part.follow())

    def _begin(self, part: Part, kind: str, pace: Pace) -> None:
        self._begun[part.path] = self._layers.directories.begin_early(part, kind, pace)

    def of(self, part: Part) -> Early | None:
        return self._begun.get(part.path)

    async def end(self) -> None:
        """Forget what turned out to be no layer that was wanted."""
        await self._layers.directories.end_early(self._begun.values())


def _steps(one: layout.Found, ahead: _Ahead) -> list[tuple[Digest, Archive]]:
    kept = one.manifest is not None
    archives = [
        replace(_archive(part, kind, kept=kept), early=ahead.of(part))
        for part, kind in zip(one.layers, one.media_types, strict=True)
    ]
    return list(zip(one.document.diff_ids, archives, strict=True))


async def add_layer_image(
    catalog: Catalog,
    body: AsyncIterable[bytes],
    describe: Callable[[Digest], bytes],
    names: tuple[Reference, ...],
) -> Image:
    """Keep an image of one layer, whose tar (compressed or not) is ``body``.

    ``describe`` makes the configuration from the layer's diff id. InvalidArgument for a bad archive; nothing
    of it is kept then.
    """
    with catalog.blobs.workspace() as workspace:
        layer = _Plain(f"{workspace}/layer")
        try:
            await pump(body, layer.feed)
            await asyncio.to_thread(layer.finish)
        finally:
            layer.close()
        part = layer.part
        raw = describe(part.digest)

        async def work(hold: Hold) -> Image:
            await catalog.layers.obtain_chain(hold, [(part.digest, _archive(part))], _silent)
            return (await catalog.add([NewImage(raw=raw, names=names)], hold))[0]

        return await _or_sweep(catalog, work)


async def pump(body: AsyncIterable[bytes], feed: Callable[[Iterable[bytes]], None]) -> None:
    """Feed a stream to a thread in batches, receiving the next while the last is written."""
    batch: list[bytes] = []
    size = 0
    writing: asyncio.Task[None] | None = None
    try:
        async for data in body:
            batch.append(bytes(data))
            size += len(data)
            if size >= _BATCH:
                if writing is not None:
                    await writing
                # In one piece: the threads hand each other the interpreter for each.
                writing = asyncio.create_task(asyncio.to_thread(feed, (b"".join(batch),)))
                batch, size = [], 0
        if writing is not None:
            await writing
        await asyncio.to_thread(feed, batch)
    except BaseException:
        if writing is not None:
            await asyncio.gather(writing, return_exceptions=True)
        raise


async def _or_sweep(catalog: Catalog, work: Callable[[Hold], Awaitable[T]]) -> T:
    """Do ``work`` with a hold; if it fails, remove what it has made."""
    try:
        with catalog.layers.holding() as hold:
            return await work(hold)
    except BaseException:
        await asyncio.shield(catalog.garbage.sweep(hold.blobs))
        raise


def _silent(diff_id: Digest, archive: Archive) -> None:
    """No progress is told."""


def _archive(part: Part, media_type: str = "", *, kept: bool = False) -> Archive:
    kind = compression.detect(part.head)
    suffixes = {"gzip": "+gzip", "zstd": "+zstd", "": ""}
    if kind not in suffixes and not media_type:
        media_type = f"{documents.OCI_LAYER}+{kind}"
    return Archive(
        digest=part.digest,
        size=part.size,
        compression=kind,
        media_type=media_type or documents.OCI_LAYER + suffixes[kind],
        part=part,
        kept=kept,
    )


class _Plain:
    """A layer's tar as it arrives, written without its compression, as ``import`` keeps it."""

    def __init__(self, path: str) -> None:
        self.part = Part(path)
        self._head = b""
        self._started = False
        self._decompressor: compression.Decompressor | None = None

    def feed(self, pieces: Iterable[bytes]) -> None:
        for data in pieces:
            if not self._started:
                data = self._head = self._head + data
                if len(data) < compression.MAGIC_LENGTH:
                    continue
                self._start()
            if self._decompressor is None:
                self.part.write(data)
            else:
                for piece in self._decompressor.feed(data):
                    self.part.write(piece)

    def finish(self) -> None:
        if self._head and not self._started:
            raise InvalidArgument("invalid archive: unexpected end of archive")
        if self._decompressor is not None:
            self._decompressor.finish()
        self.part.close()

    def close(self) -> None:
        self.part.close()

    def _start(self) -> None:
        self._started = True
        if kind := compression.detect(self._head):
            self._decompressor = compression.Decompressor(kind)
        self._head = b""

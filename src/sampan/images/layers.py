"""Unpacked layers: each once, shared by all images whose chain it is part of.

Theory: a layer's files lie in a directory with a number (``directories``). A layer is here once it is in the
store's memory; it is *kept* once its row is committed, which happens together with the first image that needs
it.

Laws:
- A layer that somebody holds, or that a kept image or a snapshot needs, is never removed, nor one below it.
- Directories are removed after their rows.
- A layer unpacked from a kept blob does not wait for the disk: its row carries the boot id, and after a power
  loss (another boot id) it is unpacked again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import msgspec

from sampan.errors import Internal, InvalidArgument
from sampan.images import unpacking
from sampan.images.blobs import BlobStore, Part
from sampan.images.directories import Directories, Early, detect_compression, sync_file_system
from sampan.images.drivers.interface import Driver
from sampan.images.dropping import Dropping
from sampan.images.holds import Hold
from sampan.images.model import Layer
from sampan.images.turns import Turns
from sampan.sandbox.unpack import Limits
from sampan.spec import digest as digests
from sampan.spec import image as documents
from sampan.spec.digest import Digest
from sampan.state import Database
from sampan.wire import compression

_COLUMNS = Layer.__struct_fields__
_INSERT = f"INSERT OR IGNORE INTO layers ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
EMPTY = "empty"
"""A directory of nothing, to stand on before there is a layer."""
INIT = "init"
"""The layer at the bottom of every root: mount points. Not an image's, so it has a word for a number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """Where a layer comes from: a part that becomes a blob before anyone sees the layer, or a blob."""

    digest: Digest
    size: int
    compression: str
    media_type: str
    part: Part | None = None
    kept: bool = False
    """Whether the blob is wanted even if the layer is here already: a manifest names it."""
    fetch: Callable[[bool], Awaitable[tuple[Part, Early | None]]] | None = None
    """Brings the part of an archive that is elsewhere; asked only if it is needed, and told whether the part
    is to be unpacked, which may have begun then."""
    early: Early | None = None
    """Where it is being unpacked already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeLayer:
    """A directory on this file system that is a layer's, and ``part``, the archive that it would unpack from.

    ``size`` in bytes; the largest owners; ``implied`` directories are to look as in the layers below.
    """

    directory: str
    part: Part
    size: int
    entries: int
    max_uid: int
    max_gid: int
    implied: tuple[str, ...] = ()


class LayerStore:
    """Layers below ``root``. Build, then ``recover`` once before use."""

    def __init__(
        self,
        root: str,
        database: Database,
        blobs: BlobStore,
        *,
        boot_id: str,
        driver: Driver,
        limits: Limits | None = None,
        run: unpacking.Run | None = None,
        drop_archives: bool = False,
    ) -> None:
        """``run`` unpacks; without it each layer has an interpreter started for it."""
        self.driver = driver
        self.directories = Directories(
            root, limits=limits or Limits(), run=run, plain_marks=driver.plain_marks
        )
        self._database = database
        self._blobs = blobs
        self._boot_id = boot_id
        self._layers: dict[Digest, Layer] = {}
        self._doubtful: set[int] = set()  # ids of those whose sync failed; the next boot unpacks them again
        self._held: Counter[Digest] = Counter()
        self.pinned: Counter[Digest] = Counter()
        """Blobs that somebody is about to need."""
        self._turns = Turns()
        self.dropping = Dropping(self, blobs, wanted=drop_archives)
        os.makedirs(f"{root}/{EMPTY}", mode=0o755, exist_ok=True)

    # ------------------------------------------------------------------ what is here

    def get(self, chain_id: Digest) -> Layer | None:
        return self._layers.get(chain_id)

    def __getitem__(self, chain_id: Digest) -> Layer:
        layer = self._layers.get(chain_id)
        if layer is None:
            raise Internal(f"layer {chain_id} is missing")
        return layer

    def __iter__(self) -> Iterator[Layer]:
        return iter(tuple(self._layers.values()))

    @property
    def root(self) -> str:
        """Where the directories are."""
        return self.directories.root

    def directory(self, layer: Layer) -> str:
        """The layer's files, absolute."""
        return self.directories.path(layer.id)

    def chain(self, chain_id: Digest | None) -> list[Layer]:
        """The layer and all below it, topmost first."""
        found: list[Layer] = []
        while chain_id is not None:
            layer = self[chain_id]
            found.append(layer)
            chain_id = layer.parent
        return found

    async def see(self, chain_id: Digest | None) -> tuple[str, ...]:
        """The directories that are a chain, one over another, to be read as long as its layers are here."""
        places = self.places(chain_id)
        await self.driver.see(places)
        return self.driver.views(places)

    def views(self, chain_id: Digest | None) -> tuple[str, ...]:
        """As ``see`` said before, of a chain that has been there since."""
        return self.driver.views(self.places(chain_id))

    def places(self, chain_id: Digest | None) -> list[str]:
        """The directories of a chain's layers, with all that is beside their files; topmost first."""
        return [self.directories.place(layer.id) for layer in self.chain(chain_id)]

    # ------------------------------------------------------------------ making

    @contextlib.contextmanager
    def holding(self) -> Iterator[Hold]:
        """A hold on layers and blobs while an image is put together."""
        hold = Hold(self._held, self.pinned)
        try:
            yield hold
        finally:
            hold.end()
            if hold.blobs:
                self.dropping.wake()

    async def obtain_chain(
        self,
        hold: Hold,
        steps: Sequence[tuple[Digest, Archive]],
        report: Callable[[Digest, Archive], None],
        done: Callable[[Archive], None] | None = None,
    ) -> tuple[Digest, ...]:
        """The layers of an image, bottom first, as (diff id, archive); unpacked side by side where missing.

        Answers with the chain ids. ``report`` is called for each layer before it is unpacked, ``done`` after.
        InvalidArgument if an archive is bad or is another layer than promised; nothing of it stays then.
        """
        chain = digests.chain_ids(diff_id for diff_id, _ in steps)
        tasks: list[asyncio.Task[Layer]] = []
        try:
            for (diff_id, archive), chain_id in zip(steps, chain, strict=True):
                below = tasks[-1] if tasks else None
                making = self._obtain(hold, chain_id, diff_id, archive, below, report, done)
                tasks.append(asyncio.create_task(making))
            # The first failure, in the order of layers, is the one to tell.
            for task in tasks:
                await task
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return chain

    async def obtain_above(
        self,
        hold: Hold,
        parent: Digest | None,
        diff_id: Digest,
        archive: Archive,
        report: Callable[[Digest, Archive], None],
    ) -> Digest:
        """One more layer over the chain ``parent``, which is here. As ``obtain_chain`` otherwise."""
        below = None
        if parent is not None:
            found = self[parent]
            hold.add(found)
            below = asyncio.create_task(_given(found))
        chain_id = digests.chain_id(parent, diff_id)
        return (await self._obtain(hold, chain_id, diff_id, archive, below, report)).chain_id

    async def take(self, hold: Hold, parent: Digest | None, made: MadeLayer) -> Digest:
        """Make a directory, as it is, the layer over the chain ``parent``; the new chain id.

        It is moved here, unless the layer is here already. Its archive becomes a blob. InvalidArgument if it
        passes the limits.
        """
        part, directories = made.part, self.directories
        archive = Archive(
            digest=part.digest, size=part.size, compression="", media_type=documents.OCI_LAYER, part=part
        )
        if self.driver.plain_marks:  # which a directory from elsewhere has not
            return await self.obtain_above(hold, parent, part.digest, archive, lambda *_: None)
        directories.limits.check(size=max(made.size, part.size), entries=made.entries)
        chain_id = digests.chain_id(parent, part.digest)
        async with self._turns.of(chain_id):
            layer = self._layers.get(chain_id)
            if layer is None:
                hold.pin(part.digest)
                await asyncio.to_thread(self._blobs.adopt, part)
                number = directories.allot()
                try:
                    directories.adopt(number, made.directory)
                    await self._complete(number, parent, list(made.implied))
                except BaseException:
                    directories.discard([number])
                    raise
                layer = self._add(number, chain_id, part.digest, parent, archive, made)
            hold.add(layer)
            return chain_id

    async def _obtain(
        self,
        hold: Hold,
        chain_id: Digest,
        diff_id: Digest,
        archive: Archive,
        below: asyncio.Task[Layer] | None,
        report: Callable[[Digest, Archive], None],
        done: Callable[[Archive], None] | None = None,
    ) -> Layer:
        async with self._turns.of(chain_id):
            layer = self._layers.get(chain_id)
            if layer is None:
                archive = await self._fetched(hold, archive, unpacked=True)
                report(diff_id, archive)
                layer = await self._make(hold, chain_id, diff_id, archive, below)
                if done is not None:
                    done(archive)
            elif (
                archive.kept or (archive.digest == layer.blob and not self._blobs.has(layer.blob))
            ) and not self.dropping.is_spared(layer, archive.digest):
                archive = await self._fetched(hold, archive, unpacked=False)
                hold.pin(archive.digest)
                if archive.part is not None:
                    await asyncio.to_thread(self._blobs.adopt, archive.part)
            hold.add(layer)
            return layer

    async def _fetched(self, hold: Hold, archive: Archive, *, unpacked: bool) -> Archive:
        """The archive with its part, or its blob, here."""
        if archive.fetch is None:
            return archive
        hold.pin(archive.digest)
        if self._blobs.has(archive.digest):
            if (size := self._blobs.size(archive.digest)) != archive.size:
                raise InvalidArgument(f"blob {archive.digest}: {size} bytes, expected {archive.size}")
            kind = await asyncio.to_thread(detect_compression, self._blobs.path(archive.digest))
            return replace(archive, compression=kind)
        part, early = await archive.fetch(unpacked)
        return replace(archive, part=part, early=early, compression=compression.detect(part.head))

    async def _make(
        self,
        hold: Hold,
        chain_id: Digest,
        diff_id: Digest,
        archive: Archive,
        below: asyncio.Task[Layer] | None,
    ) -> Layer:
        """Unpack, and make the blob last, before the layer is seen by anyone."""
        early = archive.early
        if early is not None and not early.taken:
            number, early.taken = early.number, True
        else:
            number, early = self.directories.allot(), None
        hold.pin(archive.digest)
        try:
            part = archive.part
            syncing = asyncio.create_task(asyncio.to_thread(part.sync)) if part else None
            try:
                answer = await (early.task if early else self._unpack(number, archive))
                unpacked = _checked(answer, diff_id, archive)
            finally:
                if syncing is not None:
                    await asyncio.gather(syncing, return_exceptions=True)
            found = await asyncio.shield(below) if below is not None else None
            parent = found.chain_id if found else None
            await self._complete(number, parent, unpacked.implied)
            if part is not None:
                await asyncio.to_thread(self._blobs.adopt, part)
        except BaseException:
            self.directories.discard([number])
            raise
        return self._add(number, chain_id, diff_id, parent, archive, unpacked)

    def _add(
        self,
        number: int,
        chain_id: Digest,
        diff_id: Digest,
        parent: Digest | None,
        archive: Archive,
        found: unpacking.UnpackedLayer | MadeLayer,
    ) -> Layer:
        """The layer whose files are in the directory of ``number``, here from now on."""
        layer = Layer(
            id=number,
            chain_id=chain_id,
            diff_id=diff_id,
            parent=parent,
            blob=archive.digest,
            media_type=archive.media_type,
            blob_size=archive.size,
            size=found.size,
            max_uid=found.max_uid,
            max_gid=found.max_gid,
            boot=self._boot_id,
        )
        self._layers[chain_id] = layer
        self.directories.keep(number)
        return layer

    async def _unpack(self, number: int, archive: Archive) -> unpacking.Answer:
        """Unpack into the directory of ``number``."""
        fd = archive.part.open() if archive.part else self._blobs.open(archive.digest)
        try:
            return await self.directories.unpack(number, fd, archive.compression)
        finally:
            os.close(fd)

    async def _complete(self, number: int, parent: Digest | None, implied: list[str]) -> None:
        await self.directories.complete(number, [layer.id for layer in self.chain(parent)], implied)

    def insert(self, connection: sqlite3.Connection, chain_ids: Iterable[Digest]) -> None:
        """Write the rows of layers, within the transaction that keeps their image."""
        connection.executemany(_INSERT, [msgspec.structs.astuple(self[chain_id]) for chain_id in chain_ids])

    async def settle(self) -> None:
        """Wait until every layer of this boot is on the disk, and note it."""
        pending = [layer for layer in self if layer.boot is not None and layer.id not in self._doubtful]
        if not pending:
            return
        try:
            await asyncio.to_thread(sync_file_system, self.root)
        except Internal:
            # The kernel tells of what it could not write once: the next sync would say nothing of these.
            self._doubtful |= {layer.id for layer in pending}
            raise
        ids = [(layer.id,) for layer in pending]
        await self._database.write(
            lambda connection: connection.executemany("UPDATE layers SET boot = NULL WHERE id = ?", ids)
        )
        for layer in pending:
            if self._layers.get(layer.chain_id) is layer:
                self._layers[layer.chain_id] = msgspec.structs.replace(layer, boot=None)

    # ------------------------------------------------------------------ removing

    def unneeded(self, needed: Iterable[Digest]) -> list[Layer]:
        """The layers that neither ``needed`` chains nor holds reach, topmost first."""
        reached: set[Digest] = set()
        for chain_id in (*needed, *self._held):
            step: Digest | None = chain_id
            while step is not None and step not in reached and (layer := self._layers.get(step)):
                reached.add(step)
                step = layer.parent
        spare = [layer for layer in self._layers.values() if layer.chain_id not in reached]
        return sorted(spare, key=self._depth, reverse=True)

    def forget(self, layers: Iterable[Layer]) -> None:
        """Drop layers from memory: whoever needs one of them from now on unpacks it anew."""
        for layer in layers:
            self.directories.release(layer.id)
            self._layers.pop(layer.chain_id, None)

    def discard(self, layers: Iterable[Layer]) -> None:
        """Remove the directories of forgotten layers, whose rows are gone, in the background."""
        self.directories.discard([layer.id for layer in layers])

    async def drain(self) -> None:
        """Wait for removals that are under way."""
        await self.directories.drain()

    def _depth(self, layer: Layer) -> int:
        depth, parent = 0, layer.parent
        while parent is not None and (below := self._layers.get(parent)):
            depth, parent = depth + 1, below.parent
        return depth

    # ------------------------------------------------------------------ checking

    @contextlib.asynccontextmanager
    async def unpacked_again(self, layer: Layer) -> AsyncIterator[tuple[int, list[str]]]:
        """The number of a directory into which the layer is unpacked from its blob; removed at the end.

        With it the directories whose times no archive says.
        """
        number = self.directories.allot()
        try:
            yield number, await self._fill_again(number, layer)
        finally:
            if not self.directories.is_kept(number):
                self.directories.discard([number])

    async def _fill_again(self, number: int, layer: Layer) -> list[str]:
        """Unpack a layer from its blob into the directory of ``number``; what the archive only implied."""
        archive = Archive(
            digest=layer.blob,
            size=layer.blob_size,
            compression=await asyncio.to_thread(detect_compression, self._blobs.path(layer.blob)),
            media_type=layer.media_type,
        )
        unpacked = _checked(await self._unpack(number, archive), layer.diff_id, archive)
        await self._complete(number, layer.parent, unpacked.implied)
        return unpacked.implied

    async def replace(self, layer: Layer, number: int) -> None:
        """Have the directory of that number be the layer's; nothing may stand on the old one."""
        new = msgspec.structs.replace(layer, id=number, boot=self._boot_id)
        await self._database.write(
            lambda connection: connection.execute(
                "UPDATE layers SET id = ?, boot = ? WHERE id = ?", (new.id, new.boot, layer.id)
            )
        )
        self._layers[layer.chain_id] = new
        above = [self.directories.place(one.id) for one in self if new in self.chain(one.chain_id)]
        await asyncio.to_thread(self.driver.forget, above)
        self.directories.keep(number)
        self.directories.discard([layer.id])

    def strays(self) -> list[int]:
        """Numbers of directories that are no layer's and that nobody makes."""
        return self.directories.strays(layer.id for layer in self)

    # ------------------------------------------------------------------ start

    async def recover(self, report: Callable[[str], None]) -> None:
        """Read the rows, remove directories without one, unpack again what a power loss may have taken.

        A layer that cannot be unpacked again loses its row; ``report`` gets one line about it.
        """
        query = f"SELECT {', '.join(_COLUMNS)} FROM layers ORDER BY id"
        rows = self._database.read(lambda connection: connection.execute(query).fetchall())
        layers = [Layer(**dict(zip(_COLUMNS, row, strict=True))) for row in rows]
        await self.directories.clear(layer.id for layer in layers)
        for layer in layers:
            self._layers[layer.chain_id] = layer
        # What an archive only implied looks as in the layers below. These may have the larger numbers: layers
        # are unpacked side by side.
        for layer in sorted(layers, key=self._depth):
            lost = layer.boot not in (None, self._boot_id)
            if lost or not os.path.isdir(self.directory(layer)):
                await self._restore(layer, report)

    async def _restore(self, layer: Layer, report: Callable[[str], None]) -> None:
        await self.directories.remove(layer.id)
        try:
            await self._fill_again(layer.id, layer)
        except (Internal, InvalidArgument, OSError) as error:
            report(f"layer {layer.chain_id} is lost: {error}")
            await self.directories.remove(layer.id)
            del self._layers[layer.chain_id]
            await self._database.write(
                lambda connection: connection.execute("DELETE FROM layers WHERE id = ?", (layer.id,))
            )
            return
        self._layers[layer.chain_id] = msgspec.structs.replace(layer, boot=self._boot_id)
        await self._database.write(
            lambda connection: connection.execute(
                "UPDATE layers SET boot = ? WHERE id = ?", (self._boot_id, layer.id)
            )
        )


def _checked(answer: unpacking.Answer, diff_id: Digest, archive: Archive) -> unpacking.UnpackedLayer:
    """What was unpacked, if it is the layer ``diff_id``."""
    if answer.unpacked is None:
        raise Internal("unpack process gave no result")
    found = answer.digest if archive.compression else archive.digest
    if found != diff_id:
        raise InvalidArgument(f"wrong diff id calculated on extraction: {found}, expected {diff_id}")
    return answer.unpacked


async def _given(layer: Layer) -> Layer:
    return layer

"""What nothing needs any more: rows, layers and blobs go, in that order.

Laws:
- Rows go first, in one transaction; after a crash the next start removes the files that no row names.
- A blob is needed by the images, indexes and layers that name it, and by whoever holds it; a layer by images,
  snapshots and those that said so (``also_needs``).
- What is needed is decided on the loop's thread without a pause: whoever pins something does so before it or
  after it, never between. Files are unlinked in the background.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence

from sampan.images.blobs import BlobStore
from sampan.images.indexes import ImageIndex, Indexes
from sampan.images.layers import LayerStore
from sampan.images.model import Image, Layer
from sampan.images.snapshots import Snapshots
from sampan.spec.digest import Digest
from sampan.state import Database

__all__ = ["Garbage", "blobs_of"]


class Garbage:
    """The collector of one catalogue, of whose ``images`` and ``indexes`` it has a live view."""

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        layers: LayerStore,
        snapshots: Snapshots,
        images: Mapping[Digest, Image],
        indexes: Indexes,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._layers = layers
        self._snapshots = snapshots
        self._images = images
        self._indexes = indexes
        self._others: list[Callable[[], Iterable[Digest]]] = []
        self._background: set[asyncio.Future[object]] = set()
        self._dropping = False
        self._drop_again = False
        snapshots.when_released(self._snapshot_gone)
        layers.dropping.wake = self._drop_archives

    def also_needs(self, chains: Callable[[], Iterable[Digest]]) -> None:
        """Have layers kept for the sake of others: ``chains`` says which, whenever it is asked."""
        self._others.append(chains)

    def needed_blobs(self) -> set[Digest]:
        """What images, indexes, layers and holds name."""
        found = blobs_of(self._images.values(), self._layers) | set(self._layers.pinned)
        return found.union(*(index.blobs for index in self._indexes))

    async def sweep(self, blobs: Iterable[Digest] = ()) -> list[Layer]:
        """Remove layers that nothing needs, and of ``blobs`` and theirs what nothing needs.

        For a failed load, after its hold is over, and for containers that went.
        """
        spare = await self.drop_layers(())
        self.drop_blobs({*blobs} | blobs_of([], spare))
        return spare

    async def drop_layers(
        self,
        images: Sequence[Image],
        touched: Sequence[ImageIndex] = (),
        also: Callable[[sqlite3.Connection], None] = lambda _connection: None,
    ) -> list[Layer]:
        """Delete the rows of ``images`` and of every layer that nothing needs, and do what is ``also`` to be
        done, in one transaction, during which the blobs of ``touched`` indexes stay.
        """
        tops = [top for other in self._images.values() if (top := other.chain_id)]
        tops += [chain_id for needed in self._others for chain_id in needed()]
        spare = self._layers.unneeded((*tops, *self._snapshots.parents()))

        def work(connection: sqlite3.Connection) -> None:
            also(connection)
            connection.executemany("DELETE FROM images WHERE id = ?", [(image.id,) for image in images])
            connection.executemany("DELETE FROM layers WHERE id = ?", [(layer.id,) for layer in spare])

        if not images and not spare and not touched:
            return spare
        with self._layers.holding() as hold:
            # Until their rows are gone for good, blobs are nobody's to take away.
            held = blobs_of(images, spare)
            for digest in held.union(*(index.blobs for index in touched)):
                hold.pin(digest)
            self._layers.forget(spare)
            await self._database.write(work)
        self._layers.discard(spare)
        return spare

    def drop_blobs(self, candidates: set[Digest]) -> None:
        """Take blobs that nothing needs out of the store now; unlink their files in the background."""
        spare = candidates - self.needed_blobs()
        retired = [place for digest in spare if (place := self._blobs.retire(digest)) is not None]
        if retired:
            self._later(asyncio.to_thread(_unlink, retired))

    def archives(self) -> Iterator[tuple[Digest, Digest]]:
        """The archives that layers came from, images name or indexes list, each with a layer's chain id."""
        for layer in self._layers:
            yield layer.blob, layer.chain_id
        for image in tuple(self._images.values()):
            yield from ((blob.digest, one) for blob, one in zip(image.blobs, image.chain, strict=True))
        for index in self._indexes:
            for part in index.parts:
                if (found := self._images.get(part.image_id)) is not None:
                    blobs = (blob.digest for blob in part.manifest.layers)
                    yield from zip(blobs, found.chain, strict=False)

    def settle(self) -> None:
        """In the background: sync layers that were not waited for, then drop archives they can do without."""
        self._later(self._settled())

    async def close(self) -> None:
        """Wait for what goes on in the background."""
        self._layers.dropping.end()
        while self._background:
            await asyncio.gather(*self._background, return_exceptions=True)
            await asyncio.sleep(0)  # Python 3.12 answers at once for what is done, before its callbacks ran

    async def _settled(self) -> None:
        await self._layers.settle()
        self._layers.dropping.wake()

    def _drop_archives(self) -> None:
        """Drop archives that layers can do without, in the background, one round after another."""
        self._drop_again = not self._layers.dropping.is_idle
        if self._drop_again and not self._dropping:
            self._dropping = True
            self._later(self._drop_rounds())

    async def _drop_rounds(self) -> None:
        try:
            while self._drop_again:
                self._drop_again = False
                retired = await self._layers.dropping.drop(self.archives)
                await asyncio.to_thread(_unlink, retired)
                # Layers that were removed meanwhile, and what was made again for somebody who is done.
                await self.sweep(self._layers.dropping.spare())
        finally:
            self._dropping = False

    def _snapshot_gone(self, chain_id: Digest) -> None:
        """The layers of an image that was removed before its last container go now."""
        if all(image.chain_id != chain_id for image in self._images.values()):
            self._later(self.sweep())

    def _later(self, work: Awaitable[object]) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def blobs_of(images: Iterable[Image], layers: Iterable[Layer]) -> set[Digest]:
    """The blobs that images and layers name."""
    found = {layer.blob for layer in layers}
    for image in images:
        found |= {image.id, *(blob.digest for blob in image.blobs)}
        if image.manifest:
            found.add(image.manifest)
    return found


def _unlink(paths: list[str]) -> None:
    for path in paths:
        os.unlink(path)

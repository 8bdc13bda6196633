"""The catalogue: which images are here and by what names.

Theory: an image is its configuration document, kept as a blob; its id is that blob's digest. Names and
relations are rows in the state database; everything is also in memory, and written through.

Laws:
- Write order: layers and blobs first, on the disk; then the rows, in one durable transaction. Whatever is not
  in a row does not exist, and ``recover`` removes it.
- A name leads to one image; giving it to another takes it from the first, which stays, perhaps nameless.
- A name may lead to an index, whose images for several platforms are kept with it (``indexes``).
- Removing an image removes its rows at once, and then, in the background, the files that nothing else needs
  (``garbage``).
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence

import msgspec

from sampan.errors import Failure, NotFound
from sampan.images import indexes, rows
from sampan.images.blobs import BlobStore
from sampan.images.garbage import Garbage, blobs_of
from sampan.images.holds import Hold
from sampan.images.indexes import ImageIndex, Indexes, Platform
from sampan.images.layers import LayerStore
from sampan.images.model import Image, Layer
from sampan.images.snapshots import Snapshots
from sampan.spec import digest as digests
from sampan.spec import image as documents
from sampan.spec import platform as platforms
from sampan.spec import reference as references
from sampan.spec.digest import Digest
from sampan.spec.image import Descriptor
from sampan.spec.reference import Reference
from sampan.state import Database

__all__ = ["Catalog", "Image", "NewImage"]


class NewImage(msgspec.Struct, frozen=True, kw_only=True):
    """An image to be kept: its configuration's bytes, its names, and the manifest that it came with.

    ``index`` lists that manifest; the names then lead to it.
    """

    raw: bytes
    names: tuple[Reference, ...] = ()
    manifest: bytes | None = None
    index: bytes | None = None


DOCUMENT_LIMIT = 8 << 20
"""Bytes of a configuration, manifest or index."""


class Catalog:
    """Images and their names. Build, then ``recover`` once before use."""

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        layers: LayerStore,
        snapshots: Snapshots,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._database = database
        self.blobs = blobs
        self.layers = layers
        self._snapshots = snapshots
        self._clock = clock
        self._images: dict[Digest, Image] = {}
        self._names: dict[str, tuple[Reference, Digest]] = {}
        self.indexes = Indexes(blobs)
        self.garbage = Garbage(database, blobs, layers, snapshots, self._images, self.indexes)
        self._used: Callable[[str], bool] = lambda _image_id: False
        self._supply: Callable[[Reference], Awaitable[bool]] | None = None

    # ------------------------------------------------------------------ reading

    def __iter__(self) -> Iterator[Image]:
        return iter(tuple(self._images.values()))

    def __len__(self) -> int:
        return len(self._images)

    def get(self, image_id: str) -> Image | None:
        """The image with exactly this id."""
        return self._images.get(Digest(image_id))

    def find(self, text: str) -> Image:
        """By name[:tag], name@digest, id or unique id prefix, in Docker's order of trying.

        InvalidArgument for what can be neither, NotFound for what is not here.
        """
        return self._look(text)[0]

    def index_of(self, text: str) -> ImageIndex | None:
        """The index that a name leads to, or whose main image an id means."""
        image, name = self._look(text)
        return self.indexes.of(image.id) if name is None else self.indexes.named(name)

    def find_on(self, text: str, wanted: Platform) -> Image:
        """As ``find``, for a platform. NotFound in Docker's words where there is no image for it."""
        index = self.index_of(text)
        if index is None:
            image = self.find(text)
            if platforms.fits(indexes.platform_of(image), wanted):
                return image
        elif (part := index.on(wanted)) is not None:
            return self._images[part.image_id]
        raise NotFound(
            f"image with reference {text} was found but does not provide the specified platform "
            f"({platforms.shown(*wanted)})"
        )

    def _look(self, text: str) -> tuple[Image, str | None]:
        """The image, and the name by which it was found, if it was."""
        if digests.is_digest(text) or (
            len(text) == digests.HEX_LENGTH and digests.is_digest(f"sha256:{text}")
        ):
            whole = text if text.startswith("sha256:") else f"sha256:{text}"
            image = self._images.get(Digest(whole)) or self.get(self.indexes.by_digest(whole) or "")
            if image is None:
                raise NotFound(f"No such image: {whole}")
            return image, None
        reference = references.parse(text)
        name = reference.tagged().canonical
        if name not in self._names and reference.tag and reference.digest:
            # A name with both is looked up by its digest alone, as Docker does.
            name = f"{reference.name}@{reference.digest}"
        if name in self._names:
            return self._images[self._names[name][1]], name
        if reference.digest and (part := self.indexes.in_repository(reference.name, reference.digest)):
            return self._images[part], None
        return self._find_by_prefix(text, reference), None

    def means(self, text: str, image_id: str) -> bool:
        """Whether a name leads to an image, or to the index of which it is a part."""
        image, name = self._look(text)
        index = self.indexes.named(name) if name is not None else None
        return image.id == image_id or (index is not None and image_id in index.images)

    async def resolve(self, reference: str, wanted: Platform | None = None) -> Image:
        """As ``find``, of an index the image for a platform; what the engine can make by itself is made."""
        try:
            self.find(reference)
        except NotFound:
            if self._supply is None or references.id_prefix(reference):
                raise
            if not await self._supply(references.parse(reference).tagged()):
                raise
        if wanted is None or self.index_of(reference) is None:
            return self.find(reference)
        return self.find_on(reference, wanted)

    def supply_with(self, supply: Callable[[Reference], Awaitable[bool]]) -> None:
        """Have ``supply`` make images that are asked for and missing; it says whether it did."""
        self._supply = supply

    def used_by(self, used: Callable[[str], bool]) -> None:
        """Have ``used`` say which images containers are made from; such a part outlives its index."""
        self._used = used

    def names_of(self, image_id: str) -> list[Reference]:
        """All names of an image, tags and digests, sorted."""
        found = [reference for reference, owner in self._names.values() if owner == image_id]
        return sorted(found, key=lambda reference: reference.canonical)

    def owner(self, reference: Reference) -> Image | None:
        """The image that has exactly this name."""
        found = self._names.get(reference.canonical)
        return self._images[found[1]] if found else None

    def children_of(self, image_id: str) -> list[Image]:
        """Images built or committed here on top of this one."""
        return [image for image in self._images.values() if image.config.parent == image_id]

    def _find_by_prefix(self, text: str, reference: Reference) -> Image:
        prefix = references.id_prefix(text)
        if prefix:
            found = [image for image in self._images.values() if image.id.startswith(f"sha256:{prefix}")]
            by_digest = None if found else self.indexes.by_digest(f"sha256:{prefix}")
            if by_digest is not None:
                return self._images[by_digest]
            if len(found) == 1:
                return found[0]
        raise NotFound(f"No such image: {reference.tagged().familiar}")

    # ------------------------------------------------------------------ writing

    async def add(self, new: Sequence[NewImage], hold: Hold) -> list[Image]:
        """Keep images whose layers are held, all or none. Names are taken from whoever has them."""
        images = []
        for one in new:
            for document in (one.raw, one.manifest, one.index):
                if document is not None:
                    hold.pin(digests.of(document))
                    await asyncio.to_thread(self.blobs.put, document)
            images.append(self._new_image(one))
        kept = self._indexed(new, images)
        names = [
            (name, index.main if index else image.id, index)
            for one, image in zip(new, images, strict=True)
            for name in one.names
            for index in (kept.get(digests.of(one.index)) if one.index else None,)
        ]

        def work(connection: sqlite3.Connection) -> None:
            for image in images:
                self.layers.insert(connection, image.chain)
                rows.insert_image(connection, image)
            for one in kept.values():
                indexes.insert(connection, one)
            for name, owner, index in names:
                rows.insert_names(connection, (name,), owner, index)

        replaced = [known for image in images if (known := self._images.get(image.id)) is not None]
        await self._database.write(work)
        for image in images:
            self._images[image.id] = image
        for whole in kept.values():
            self._keep_index(whole)
        for name, owner, index in names:
            self._name(name, owner, index)
        await self._settle()
        # The same image with another manifest: what only the former one named goes.
        self.garbage.drop_blobs(blobs_of(replaced, ()))
        self.garbage.settle()
        return images

    def _indexed(self, new: Sequence[NewImage], images: Sequence[Image]) -> dict[Digest, ImageIndex]:
        """The indexes of new images, with these among their parts."""
        kept: dict[Digest, ImageIndex] = {}
        for one, image in zip(new, images, strict=True):
            if one.index is not None and one.manifest is not None:
                index, manifest = documents.parse_index(one.index), documents.parse_manifest(one.manifest)
                if any(below.digest == manifest.digest for below in index.manifests):
                    former = kept.get(index.digest)
                    kept[index.digest] = self.indexes.extended(index, [(image, manifest)], former)
        return kept

    def _keep_index(self, index: ImageIndex) -> None:
        self.indexes.keep(index)
        for canonical in self.indexes.names_to(index.digest):
            self._names[canonical] = (self._names[canonical][0], index.main)

    def _name(self, name: Reference, owner: Digest, index: ImageIndex | None) -> None:
        self._names[name.canonical] = (name, owner)
        self.indexes.lead(name.canonical, index.digest if index else None)

    def described(self, one: NewImage) -> Image:
        """The image as it would be, without adding it; its layers are here."""
        return self._new_image(one)

    def _new_image(self, one: NewImage) -> Image:
        document = documents.parse_image(one.raw)
        known = self._images.get(document.digest)
        now = self._clock()
        return self._image(
            document,
            manifest=digests.of(one.manifest) if one.manifest else (known.manifest if known else None),
            loaded_ns=known.loaded_ns if known else now,
            tagged_ns=now if one.names else (known.tagged_ns if known else 0),
        )

    async def tag(self, image: Image, reference: Reference, index: ImageIndex | None = None) -> None:
        """Give the image a name, which leads to ``index``, taking it from whoever has it. Idempotent."""
        tagged = msgspec.structs.replace(image, tagged_ns=self._clock())

        def work(connection: sqlite3.Connection) -> None:
            if not connection.execute("SELECT 1 FROM images WHERE id = ?", (image.id,)).fetchone():
                raise NotFound(f"No such image: {image.id}")
            rows.insert_names(connection, (reference,), image.id, index)
            connection.execute("UPDATE images SET tagged_ns = ? WHERE id = ?", (tagged.tagged_ns, image.id))

        await self._database.write(work)
        if image.id in self._images:
            self._images[image.id] = tagged
            self._name(reference, image.id, index)
        await self._settle()

    async def untag(self, reference: Reference) -> None:
        """Take a name away. Succeeds if it is already gone."""
        key = reference.canonical
        self._names.pop(key, None)
        self.indexes.lead(key, None)
        await self._database.write(
            lambda connection: connection.execute("DELETE FROM image_references WHERE reference = ?", (key,))
        )
        await self._settle()

    async def remove(self, image: Image) -> list[Layer]:
        """Remove an image and its names, and with a main image the other parts of its index that nothing else
        needs. Answers with the layers that go, topmost first.

        The files go in the background; a crash leaves that to the next start.
        """
        return await self._remove([image, *self._orphans(self.indexes.mains(image.id), {image.id})])

    async def remove_part(self, index: ImageIndex, image: Image) -> list[Layer]:
        """Take an image out of an index; it goes, if nothing else needs it. Answers as ``remove``.

        Taking the last one out removes the index with all its names.
        """
        left = index.without([image.id])
        if left is None:
            return await self.remove(self._images[index.main])
        self._keep_index(left)
        return await self._remove(self._orphans([index], set(), left), changed=[index], left=left)

    async def _remove(
        self, gone: Sequence[Image], changed: Sequence[ImageIndex] = (), left: ImageIndex | None = None
    ) -> list[Layer]:
        """Remove images in one transaction, in which ``changed`` indexes go but for what is ``left``."""
        ids = {image.id for image in gone}
        for image_id in ids:
            self._images.pop(image_id, None)
        for key in [key for key, (_, owner) in self._names.items() if owner in ids]:
            del self._names[key]
            self.indexes.lead(key, None)
        touched = [*changed, *self.indexes.drop_images(ids)]

        def work(connection: sqlite3.Connection) -> None:
            indexes.delete(connection, [index.digest for index in changed if left is None])
            if left is not None:
                indexes.insert(connection, left)

        spare = await self.garbage.drop_layers(gone, touched, work)
        self.garbage.drop_blobs(blobs_of(gone, spare).union(*(index.blobs for index in touched)))
        return spare

    def _orphans(
        self, dying: Sequence[ImageIndex], removed: set[Digest], left: ImageIndex | None = None
    ) -> list[Image]:
        """The images that only ``dying`` indexes keep; ``left`` is what one of them becomes."""
        gone = {index.digest for index in dying}
        others = [index for index in self.indexes if index.digest not in gone]
        others += [left] if left is not None else []
        kept = {image_id for index in others for image_id in index.images}
        candidates = {image_id for index in dying for image_id in index.images} - kept - removed
        return [
            image
            for image_id in sorted(candidates)
            if (image := self._images.get(image_id)) is not None
            and not (self.names_of(image_id) or self.children_of(image_id) or self._is_used(image))
        ]

    def _is_used(self, image: Image) -> bool:
        return self._used(image.id) or image.chain_id in tuple(self._snapshots.parents())

    async def _settle(self) -> None:
        """Remove indexes to which no name leads though their main image has one, and what only they keep."""
        dead = [
            index
            for index in self.indexes
            if not self.indexes.names_to(index.digest) and self.names_of(index.main)
        ]
        if dead:
            gone = self._orphans(dead, {index.main for index in dead})
            for index in dead:
                self.indexes.forget(index.digest)
            await self._remove(gone, dead)

    async def close(self) -> None:
        """Wait for what goes on in the background."""
        await self.garbage.close()
        await self.layers.drain()

    # ------------------------------------------------------------------ start

    async def recover(self, report: Callable[[str], None]) -> None:
        """Read the rows, and remove what no row names. ``report`` gets one line for each thing lost."""
        await asyncio.to_thread(self.blobs.clear)
        await self.layers.recover(report)
        found = self._database.read(lambda connection: connection.execute(rows.SELECT_IMAGES).fetchall())
        for image_id, manifest, loaded_ns, tagged_ns in found:
            try:
                document = documents.parse_image(self.blobs.read(image_id))
                image = self._image(document, manifest=manifest, loaded_ns=loaded_ns, tagged_ns=tagged_ns)
            except Failure as error:
                report(f"image {image_id} is lost: {error}")
                await self._forget_row(image_id)
                continue
            self._images[image.id] = image
        for text, owner in self._database.read(
            lambda connection: connection.execute(rows.SELECT_NAMES).fetchall()
        ):
            if owner in self._images:
                reference = references.parse(text)
                self._names[reference.canonical] = (reference, owner)
        lost = self._database.read(lambda connection: self.indexes.read(connection, self._images, report))
        if lost:
            await self._database.write(lambda connection: indexes.delete(connection, lost))
        await self.garbage.drop_layers(())
        await self._settle()
        self.garbage.drop_blobs(set(self.blobs.digests()))
        self.garbage.settle()

    async def _forget_row(self, image_id: str) -> None:
        await self._database.write(
            lambda connection: connection.execute("DELETE FROM images WHERE id = ?", (image_id,))
        )

    def _image(
        self, document: documents.ImageDocument, *, manifest: Digest | None, loaded_ns: int, tagged_ns: int
    ) -> Image:
        chain = digests.chain_ids(document.diff_ids)
        layers = [self.layers[chain_id] for chain_id in chain]
        if manifest is None:
            blobs = tuple(
                Descriptor(media_type=layer.media_type, digest=layer.blob, size=layer.blob_size)
                for layer in layers
            )
        else:
            blobs = documents.parse_manifest(self.blobs.read(manifest)).layers
        return Image(
            id=document.digest,
            config=document,
            manifest=manifest,
            chain=chain,
            blobs=blobs,
            size=sum(layer.size for layer in layers),
            max_id=max((max(layer.max_uid, layer.max_gid) for layer in layers), default=0),
            loaded_ns=loaded_ns,
            tagged_ns=tagged_ns,
        )

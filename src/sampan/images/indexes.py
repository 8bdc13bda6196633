"""Indexes: images for several platforms under one name, and which of these are here.

Theory: an index is a document that lists manifests by platform. Its *parts* are those of its manifests whose
whole image is here; one part is its *main* image, which is what a name with the index means to whoever asks
for no platform: this machine's, or else what came last. The other parts are images like any other, but are
shown as parts of the index only.

Laws:
- An index is here as long as its main image is, and a name leads to it or nothing names its main image.
- A part that is no main image goes with its last index, unless it has a name, a container or a child.
- A part's blobs are those of the manifest that the index lists, byte for byte.

Values and rows only; the catalogue says when.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec

from sampan.errors import Failure
from sampan.images.blobs import BlobStore
from sampan.images.model import Image
from sampan.spec import image as documents
from sampan.spec import platform as platforms
from sampan.spec.digest import Digest
from sampan.spec.image import Descriptor, Index, Manifest

Platform = tuple[str, str, str]
"""(os, architecture, variant)"""

_ATTESTATION = "vnd.docker.reference.type"


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """An image of an index that is here: its descriptor in the index, its manifest, its id, its platform."""

    descriptor: Descriptor
    manifest: Manifest
    image_id: Digest
    platform: Platform

    @property
    def blobs(self) -> set[Digest]:
        """All that it needs in the content store."""
        below = {blob.digest for blob in self.manifest.layers}
        return {self.descriptor.digest, self.manifest.config.digest, *below}


class ImageIndex(msgspec.Struct, frozen=True, kw_only=True):
    """An index that is here, with its parts in the document's order; ``main`` is an image's id."""

    document: Index
    main: Digest
    parts: tuple[Part, ...]

    @property
    def digest(self) -> Digest:
        return self.document.digest

    @property
    def descriptor(self) -> Descriptor:
        """What points at it."""
        raw = self.document.raw
        return Descriptor(media_type=self.document.media_type, digest=self.digest, size=len(raw))

    @property
    def blobs(self) -> set[Digest]:
        """All that it needs in the content store."""
        return {self.digest}.union(*(part.blobs for part in self.parts))

    @property
    def images(self) -> tuple[Digest, ...]:
        """The ids of its images, each once."""
        return tuple(dict.fromkeys(part.image_id for part in self.parts))

    @property
    def is_whole(self) -> bool:
        """Whether all that the index lists is here."""
        wanted = {one.digest for one in self.document.manifests}
        return wanted <= {part.descriptor.digest for part in self.parts}

    def lists(self, digest: str) -> bool:
        """Whether it is the manifest of one of the parts."""
        return any(part.descriptor.digest == digest for part in self.parts)

    def without(self, image_ids: Iterable[str]) -> ImageIndex | None:
        """The same with fewer parts, and another main image if that was one of them; None if none is left."""
        gone = frozenset(image_ids)
        parts = tuple(part for part in self.parts if part.image_id not in gone)
        if not parts:
            return None
        return ImageIndex(document=self.document, main=_main(parts, self.main), parts=parts)

    def on(self, wanted: Platform) -> Part | None:
        """The part for a platform, the most fitting variant first."""
        fitting = [part for part in self.parts if platforms.fits(part.platform, wanted)]
        exact = [part for part in fitting if part.platform == wanted]
        return next(iter(exact or sorted(fitting, key=lambda part: part.platform, reverse=True)), None)


class Indexes:
    """The indexes that are here."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._indexes: dict[Digest, ImageIndex] = {}
        self._names: dict[str, Digest] = {}
        self._leading: dict[Digest, set[str]] = {}  # the same the other way round
        self._owners: dict[Digest, set[Digest]] = {}  # the indexes of an image

    def __iter__(self) -> Iterator[ImageIndex]:
        return iter(tuple(self._indexes.values()))

    def get(self, digest: str) -> ImageIndex | None:
        return self._indexes.get(Digest(digest))

    def named(self, canonical: str) -> ImageIndex | None:
        """The index that a name leads to."""
        digest = self._names.get(canonical)
        return self._indexes.get(digest) if digest else None

    def leads(self, canonical: str, index: Index) -> bool:
        """Whether a name leads to that index."""
        return self._names.get(canonical) == index.digest

    def has(self, index: Index, manifest: str) -> bool:
        """Whether the image of a manifest that an index lists is here."""
        known = self._indexes.get(index.digest)
        return known is not None and known.lists(manifest)

    def of(self, image_id: str) -> ImageIndex | None:
        """The index whose main image it is; of several the first by digest."""
        return min(self.mains(image_id), key=lambda index: index.digest, default=None)

    def mains(self, image_id: str) -> list[ImageIndex]:
        """Every index whose main image it is."""
        return [index for index in self._with(image_id) if index.main == image_id]

    def _with(self, image_id: str) -> list[ImageIndex]:
        """Every index of which it is a part."""
        return [self._indexes[digest] for digest in self._owners.get(Digest(image_id), ())]

    def is_hidden(self, image_id: str) -> bool:
        """Whether an image without names is shown as a part only: it is one, and no main image."""
        found = self._with(image_id)
        return bool(found) and all(index.main != image_id for index in found)

    def by_digest(self, digest: str) -> Digest | None:
        """The id of the image whose manifest in an index, or whose index, has this digest or begins so."""
        for index in self:
            if index.digest.startswith(digest):
                return index.main
            for part in index.parts:
                if part.descriptor.digest.startswith(digest):
                    return part.image_id
        return None

    def in_repository(self, repository: str, digest: str) -> Digest | None:
        """The id of the image whose manifest has this digest, in an index that the repository names."""
        for index in self:
            for part in index.parts:
                if part.descriptor.digest == digest and any(
                    name.startswith((f"{repository}:", f"{repository}@"))
                    for name in self.names_to(index.digest)
                ):
                    return part.image_id
        return None

    def extended(
        self, index: Index, found: Sequence[tuple[Image, Manifest]], former: ImageIndex | None = None
    ) -> ImageIndex:
        """``index`` with further parts beside those that are here, or that ``former`` has."""
        known = former or self._indexes.get(index.digest)
        parts = {part.descriptor.digest: part for part in (known.parts if known else ())}
        for descriptor in index.manifests:
            for image, manifest in found:
                if manifest.digest == descriptor.digest:
                    parts[descriptor.digest] = _part(descriptor, image, manifest)
        order = dict.fromkeys(one.digest for one in index.manifests)
        ordered = tuple(parts[digest] for digest in order if digest in parts)
        return ImageIndex(document=index, main=_main(ordered, found[-1][0].id), parts=ordered)

    # ------------------------------------------------------------------ in memory

    def keep(self, index: ImageIndex) -> None:
        self._disown(index.digest)
        self._indexes[index.digest] = index
        for image_id in index.images:
            self._owners.setdefault(image_id, set()).add(index.digest)

    def _disown(self, digest: Digest) -> None:
        index = self._indexes.get(digest)
        for image_id in index.images if index is not None else ():
            owners = self._owners[image_id]
            owners.discard(digest)
            if not owners:
                del self._owners[image_id]

    def lead(self, canonical: str, digest: Digest | None) -> None:
        """Have a name lead to an index, or to none."""
        former = self._names.pop(canonical, None)
        if former is not None:
            self._leading[former].discard(canonical)
        if digest is not None:
            self._names[canonical] = digest
            self._leading.setdefault(digest, set()).add(canonical)

    def names_to(self, digest: Digest) -> list[str]:
        """The names that lead to an index."""
        return sorted(self._leading.get(digest, ()))

    def drop_images(self, image_ids: Iterable[str]) -> list[ImageIndex]:
        """Forget images that go, and the indexes whose main image goes; what is touched, as it was."""
        gone = frozenset(Digest(image_id) for image_id in image_ids)
        touched = [self._indexes[one] for one in {one for key in gone for one in self._owners.get(key, ())}]
        for index in touched:
            left = None if index.main in gone else index.without(gone)
            if left is None:
                self.forget(index.digest)
            else:
                self.keep(left)
        return touched

    def forget(self, digest: Digest) -> None:
        self._disown(digest)
        self._indexes.pop(digest, None)
        for name in self._leading.pop(digest, ()):
            del self._names[name]

    def read(
        self, connection: sqlite3.Connection, images: Mapping[Digest, Image], report: Callable[[str], None]
    ) -> list[Digest]:
        """Begin with what the database has; ``report`` hears of indexes that cannot be read, the answer."""
        lost = []
        owners: dict[str, dict[str, str]] = {}
        for digest, manifest, owner in connection.execute(_SELECT_PARTS):
            owners.setdefault(digest, {})[manifest] = owner
        for digest, main in connection.execute(_SELECT):
            try:
                self._read(Digest(digest), Digest(main), owners.get(digest, {}), images)
            except Failure as error:
                report(f"index {digest} is lost: {error}")
                lost.append(Digest(digest))
        for name, digest in connection.execute(_SELECT_NAMES):
            if digest in self._indexes:
                self.lead(name, Digest(digest))
        return lost

    def _read(
        self, digest: Digest, main: Digest, owners: Mapping[str, str], images: Mapping[Digest, Image]
    ) -> None:
        index = documents.parse_index(self._blobs.read(digest))
        parts = []
        for descriptor in index.manifests:
            image = images.get(Digest(owners.get(descriptor.digest, "")))
            if image is not None:
                manifest = documents.parse_manifest(self._blobs.read(descriptor.digest))
                parts.append(_part(descriptor, image, manifest))
        if any(part.image_id == main for part in parts):
            self.keep(ImageIndex(document=index, main=main, parts=tuple(parts)))


_SELECT = "SELECT digest, image_id FROM image_indexes"
_SELECT_PARTS = "SELECT index_digest, manifest, image_id FROM image_index_parts"
_SELECT_NAMES = "SELECT reference, index_digest FROM image_references WHERE index_digest IS NOT NULL"


def insert(connection: sqlite3.Connection, index: ImageIndex) -> None:
    """Write an index with its parts, and have every name of it lead to its main image."""
    connection.execute(
        "INSERT INTO image_indexes (digest, image_id) VALUES (?, ?) ON CONFLICT (digest)"
        " DO UPDATE SET image_id = excluded.image_id",
        (index.digest, index.main),
    )
    connection.execute("DELETE FROM image_index_parts WHERE index_digest = ?", (index.digest,))
    connection.executemany(
        "INSERT INTO image_index_parts (index_digest, manifest, image_id) VALUES (?, ?, ?)",
        [(index.digest, part.descriptor.digest, part.image_id) for part in index.parts],
    )
    connection.execute(
        "UPDATE image_references SET image_id = ? WHERE index_digest = ?", (index.main, index.digest)
    )


def delete(connection: sqlite3.Connection, digests: Iterable[Digest]) -> None:
    """Delete indexes; names that lead to them keep their images."""
    for digest in digests:
        connection.execute("DELETE FROM image_indexes WHERE digest = ?", (digest,))
        connection.execute(
            "UPDATE image_references SET index_digest = NULL WHERE index_digest = ?", (digest,)
        )


def is_attestation(descriptor: Descriptor) -> bool:
    """Whether a manifest of an index only says something of another (BuildKit's provenance)."""
    return _ATTESTATION in descriptor.annotations


def platform_of(image: Image, descriptor: Descriptor | None = None) -> Platform:
    """The platform that an index gives to an image, or that the image has by itself."""
    told = (descriptor.platform if descriptor else None) or {}
    config = image.config
    found = [told.get(name) for name in ("os", "architecture", "variant")]
    if isinstance(found[0], str) and isinstance(found[1], str) and found[0] and found[1]:
        return found[0], found[1], found[2] if isinstance(found[2], str) else ""
    return config.os, config.architecture, config.variant


def _part(descriptor: Descriptor, image: Image, manifest: Manifest) -> Part:
    return Part(
        descriptor=descriptor,
        manifest=manifest,
        image_id=image.id,
        platform=platform_of(image, descriptor),
    )


def _main(parts: Sequence[Part], otherwise: Digest) -> Digest:
    """This machine's image; or ``otherwise`` if it is there, or the first."""
    here = platforms.parse("")
    own = [part.image_id for part in parts if platforms.fits(part.platform, here)]
    ids = [part.image_id for part in parts]
    return own[0] if own else otherwise if otherwise in ids else ids[0]

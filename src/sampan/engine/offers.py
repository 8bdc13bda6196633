"""What this engine offers as a registry: its tagged images, by repository, as blobs that are here.

Theory: a repository is the name of an image as people type it, so that ``busybox`` here is ``HOST/busybox``
for whoever pulls; the port of another registry's name, which no repository can have, is left out. An image is
offered by the manifest that it came with, or by the one that it would be saved with.

Law: a blob is given to who names a repository that needs it, and to nobody else; it is held while it is read.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import msgspec

from sampan.errors import Failure
from sampan.images.saving import manifest_of
from sampan.spec import digest as digests
from sampan.spec.digest import Digest

if TYPE_CHECKING:
    from sampan.images.catalog import Catalog
    from sampan.images.model import Image
    from sampan.spec.reference import Reference


class Offered(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest or an index."""

    raw: bytes
    media_type: str

    @property
    def digest(self) -> Digest:
        return digests.of(self.raw)


class Offers:
    """Looked up anew for each question: what is removed here is offered no more."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def repositories(self) -> list[str]:
        """Their names, sorted."""
        return sorted({_repository(name) for name, _ in self._tagged()})

    def tags(self, repository: str) -> list[str] | None:
        """Sorted; None for a repository that is not here."""
        found = {name.tag for name, _ in self._tagged() if _repository(name) == repository and name.tag}
        return sorted(found) if found else None

    def manifest(self, repository: str, reference: str) -> Offered | None:
        """By tag or digest."""
        by_digest = digests.is_digest(reference)
        for name, image in self._tagged():
            if _repository(name) != repository or not (by_digest or name.tag == reference):
                continue
            for found in self._documents(name, image):
                if not by_digest or found.digest == reference:
                    return found
        return None

    def blob(self, repository: str, digest: str) -> int | None:
        """Its size in bytes; None if the repository has none of that digest here."""
        needed = any(
            digest in self._blobs(name, image)
            for name, image in self._tagged()
            if _repository(name) == repository
        )
        return self._catalog.layers.dropping.size(Digest(digest)) if needed else None

    @asynccontextmanager
    async def reading(self, digest: str) -> AsyncIterator[int]:
        """A descriptor of a blob, made again if it was dropped. Internal if it is gone."""
        with self._catalog.layers.holding() as hold:
            hold.pin(Digest(digest))
            await self._catalog.layers.dropping.bring(Digest(digest))
            fd = self._catalog.blobs.open(digest)
            with open(fd, "rb", buffering=0):
                yield fd

    def _tagged(self) -> Iterator[tuple[Reference, Image]]:
        for image in self._catalog:
            for name in self._catalog.names_of(image.id):
                if name.tag:
                    yield name, image

    def _documents(self, name: Reference, image: Image) -> Iterator[Offered]:
        """What a name leads to, then what lies below that."""
        index = self._catalog.index_of(name.canonical)
        if index is not None and self._catalog.layers.dropping.is_whole(index.blobs):
            yield Offered(raw=index.document.raw, media_type=index.document.media_type)
            for part in index.parts:
                yield Offered(raw=part.manifest.raw, media_type=part.manifest.media_type)
        with suppress(Failure):
            with self._catalog.layers.holding() as hold:
                shown = self._catalog.layers.dropping.available(image, hold)
                raw, media_type = manifest_of(self._catalog, shown)
            yield Offered(raw=raw, media_type=media_type)

    def _blobs(self, name: Reference, image: Image) -> set[str]:
        index = self._catalog.index_of(name.canonical)
        found: set[str] = {image.id, *(blob.digest for blob in image.blobs)}
        found |= {layer.diff_id for chain_id in image.chain if (layer := self._catalog.layers.get(chain_id))}
        return found | index.blobs if index is not None else found


def _repository(name: Reference) -> str:
    familiar = name.familiar_name
    head, slash, rest = familiar.partition("/")
    return head.partition(":")[0] + slash + rest if slash else familiar

"""Push: an image that is here, to a registry.

An index of which everything is here goes as it is, its images before it; of one that is here in part, only
the image that its name means goes.

Laws: the manifest goes last, after every blob that it names is at the registry; a layer kept as a plain tar
goes compressed; an image that came with a manifest of no plain layers is pushed with the same bytes, so that
its digest stays. A blob that the registry has is not sent, nor one that another of its repositories can hand
over; of a manifest that its repository has, the blobs are there.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, TypeVar

from sampan.engine import registries
from sampan.engine.telling import in_thread, told
from sampan.errors import InvalidArgument, NotFound
from sampan.images import saving
from sampan.images.model import Progress
from sampan.spec import digest as digests
from sampan.spec import image as documents
from sampan.spec import platform as platforms
from sampan.spec.digest import Digest
from sampan.spec.image import DOCKER_CONFIG, DOCKER_LAYER, DOCKER_MANIFEST, OCI_LAYER, Descriptor
from sampan.spec.reference import Reference

if TYPE_CHECKING:
    from sampan.engine.images import Images
    from sampan.engine.model import Event
    from sampan.engine.settings import Settings
    from sampan.images.blobs import Part
    from sampan.images.catalog import Catalog
    from sampan.images.compressed import CompressedForms
    from sampan.images.holds import Hold
    from sampan.images.indexes import ImageIndex
    from sampan.images.model import Image
    from sampan.registry.client import Session
    from sampan.registry.credentials import Credentials
    from sampan.registry.repository import Blob

T = TypeVar("T")

_TELL_EVERY = 0.1  # seconds
_ORIGINS = 3
_PLAIN = frozenset((DOCKER_LAYER, OCI_LAYER))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """The end of a push of one tag: what the registry has now."""

    tag: str
    digest: Digest
    size: int


class Pushes:
    """Pushes images."""

    def __init__(
        self,
        *,
        images: Images,
        catalog: Catalog,
        forms: CompressedForms,
        publish: Callable[[Event], None],
        settings: Settings,
    ) -> None:
        self._images = images
        self._catalog = catalog
        self._forms = forms
        self._publish = publish
        self._settings = settings

    def push(
        self, reference: Reference, credentials: Credentials, platform: str = ""
    ) -> AsyncGenerator[Progress | Pushed, None]:
        """Push a tag, or every tag of the repository; ``platform`` is the only one that will do.

        NotFound after the first message if there is none.
        """
        if reference.digest:
            raise InvalidArgument("cannot push a digest reference")
        return told(lambda tell: self._push(reference, credentials, platform, tell))

    def _chosen(self, reference: Reference) -> list[tuple[Reference, Image]]:
        tags = self._tags_of(reference)
        if not tags:
            raise NotFound(f"An image does not exist locally with the tag: {reference.familiar_name}")
        if reference.tag:
            if reference not in tags:
                raise NotFound(f"tag does not exist: {reference.familiar}")
            tags = [reference]
        return [(tag, image) for tag in tags if (image := self._catalog.owner(tag)) is not None]

    def _is_whole(self, index: ImageIndex) -> bool:
        return index.is_whole and self._catalog.layers.dropping.is_whole(index.blobs)

    def _tags_of(self, reference: Reference) -> list[Reference]:
        names = [name for image in self._catalog for name in self._catalog.names_of(image.id)]
        return sorted(
            (name for name in names if name.tag and name.name == reference.name),
            key=lambda name: name.tag or "",
        )

    async def _push(
        self,
        reference: Reference,
        credentials: Credentials,
        platform: str,
        tell: Callable[[Progress | Pushed], None],
    ) -> None:
        tell(Progress(status=f"The push refers to repository [{reference.name}]"))
        chosen = [
            (tag, self._catalog.find_on(tag.familiar, platforms.parse(platform)) if platform else image)
            for tag, image in self._chosen(reference)
        ]
        options = self._settings.options
        session = await registries.session(reference, credentials, options.registries, tell)
        try:
            with (
                self._catalog.layers.holding() as hold,
                ThreadPoolExecutor(options.max_uploads, "push") as threads,
                contextlib.closing(session),
                self._catalog.blobs.workspace() as workspace,
            ):
                work = Push(self._catalog, self._forms, session, threads, workspace, tell)
                for tag, image in chosen:
                    index = None if platform else self._catalog.indexes.named(tag.canonical)
                    if index is not None and self._is_whole(index):
                        pushed = await work.index(index, tag, hold)
                        await self._images.keep_name(image, tag.at_digest(pushed.digest), index)
                    else:
                        pushed = await work.image(image, tag, hold)
                        if not self._catalog.indexes.is_hidden(image.id):
                            await self._images.keep_name(image, tag.at_digest(pushed.digest))
                    tell(Progress(status=f"{pushed.tag}: digest: {pushed.digest} size: {pushed.size}"))
                    tell(pushed)
                    self._publish(registries.event("push", tag))
        finally:
            # An image that was removed meanwhile has left behind what was held.
            await asyncio.shield(self._catalog.garbage.sweep(hold.blobs))


class Push:
    """One push. ``threads`` bounds how much goes on at once; ``workspace`` is for compressed forms."""

    def __init__(
        self,
        catalog: Catalog,
        forms: CompressedForms,
        session: Session,
        threads: ThreadPoolExecutor,
        workspace: str,
        tell: Callable[[Progress | Pushed], None],
    ) -> None:
        self._catalog = catalog
        self._forms = forms
        self._session = session
        self._threads = threads
        self._workspace = workspace
        self._tell = tell
        self.repository = session.writing()

    async def run(self, work: Callable[[], T]) -> T:
        """Do ``work`` in a thread. Cancelled, it is told so and waited for."""
        return await in_thread(self._threads, work, cancel=self._session.cancel)

    async def image(self, image: Image, reference: Reference, hold: Hold) -> Pushed:
        image = self._catalog.layers.dropping.available(image, hold)
        self._prepare(image.blobs)
        again = await self._again(image, reference)
        if again is not None:
            return again
        layers = await self.layers(image.blobs, self._origins([image], reference))
        await self.run(functools.partial(self._configuration, image))
        return await self._put(reference, *self._manifest(image, layers))

    def _prepare(self, blobs: Iterable[Descriptor]) -> None:
        for blob in blobs:
            self._tell(Progress(status="Preparing", id=digests.short(blob.digest)))

    async def _put(self, reference: Reference, raw: bytes, media_type: str) -> Pushed:
        tag = reference.tag or ""
        digest = await self.run(lambda: self.repository.put_manifest(tag, raw, media_type))
        return Pushed(tag=tag, digest=digest, size=len(raw))

    async def _again(self, image: Image, reference: Reference) -> Pushed | None:
        """Name the manifest if the repository has it: it took it once all was there. None if it has not.

        A registry that lost something meanwhile says so when the name is put; everything is looked at then.
        """
        forms = [self._form(blob) for blob in image.blobs]
        layers = [
            _layer(*form, blob, plain=blob.media_type in _PLAIN)
            for blob, form in zip(image.blobs, forms, strict=True)
            if form is not None
        ]
        if len(layers) < len(image.blobs):
            return None
        return await self._named(reference, *self._manifest(image, layers), image.blobs)

    async def _named(
        self, reference: Reference, raw: bytes, media_type: str, blobs: Iterable[Descriptor]
    ) -> Pushed | None:
        """Name a manifest or index that the repository has, with all its blobs; None if it has not."""
        if not await self.run(lambda: self.repository.has_manifest(digests.of(raw))):
            return None
        try:
            pushed = await self._put(reference, raw, media_type)
        except (InvalidArgument, NotFound):
            return None
        for blob in blobs:
            self._tell(Progress(status="Layer already exists", id=digests.short(blob.digest)))
        return pushed

    def _form(self, blob: Descriptor) -> tuple[Digest, int] | None:
        """Digest and size of what goes to a registry, if it is known by now."""
        return self._forms.known(blob.digest) if blob.media_type in _PLAIN else (blob.digest, blob.size)

    async def index(self, index: ImageIndex, reference: Reference, hold: Hold) -> Pushed:
        """Push an index of which everything is here, all of it byte for byte."""
        for digest in index.blobs:
            hold.pin(digest)
        images = [image for one in index.images if (image := self._catalog.get(one)) is not None]
        for image in images:
            self._catalog.layers.dropping.available(image, hold)
        blobs = list({blob.digest: blob for part in index.parts for blob in part.manifest.layers}.values())
        self._prepare(blobs)
        document = index.document
        again = await self._named(reference, document.raw, document.media_type, blobs)
        if again is not None:
            return again
        await self.layers(blobs, self._origins(images, reference), verbatim=True)
        for image in images:
            await self.run(functools.partial(self._configuration, image))
        for part in index.parts:
            digest, raw, kind = part.descriptor.digest, part.manifest.raw, part.descriptor.media_type
            await self.run(functools.partial(self.repository.put_manifest, digest, raw, kind))
        return await self._put(reference, document.raw, document.media_type)

    async def layers(
        self, blobs: Sequence[Descriptor], origins: tuple[str, ...], *, verbatim: bool = False
    ) -> list[Descriptor]:
        """See to it that the registry has all of them; the descriptors of the forms that it has."""
        uploads = [asyncio.create_task(self._layer(blob, origins, verbatim=verbatim)) for blob in blobs]
        try:
            return [await upload for upload in uploads]
        finally:
            for upload in uploads:
                upload.cancel()
            await asyncio.gather(*uploads, return_exceptions=True)

    def _manifest(self, image: Image, layers: list[Descriptor]) -> tuple[bytes, str]:
        if image.manifest is not None and all(blob.media_type not in _PLAIN for blob in image.blobs):
            return saving.manifest_of(self._catalog, image)
        config = Descriptor(media_type=DOCKER_CONFIG, digest=image.id, size=len(image.config.raw))
        raw = documents.encode(
            {
                "schemaVersion": 2,
                "mediaType": DOCKER_MANIFEST,
                "config": config.document(),
                "layers": [layer.document() for layer in layers],
            }
        )
        return raw, DOCKER_MANIFEST

    async def _layer(self, blob: Descriptor, origins: tuple[str, ...], *, verbatim: bool) -> Descriptor:
        """See to it that the registry has the layer; the descriptor of the form that it has."""
        short = digests.short(blob.digest)
        plain = blob.media_type in _PLAIN and not verbatim
        form = (blob.digest, blob.size) if verbatim else self._form(blob)
        if form is not None and await self._is_there(form[0], origins, short):
            return _layer(form[0], form[1], blob, plain=plain)
        await self._catalog.layers.dropping.bring(blob.digest)
        part: Part | None = None
        if plain:
            target = f"{self._workspace}/{digests.hex_of(blob.digest)}"
            part = await self.run(lambda: self._forms.make(blob.digest, target))
            await self._forms.remember(blob.digest, part)
            form = (part.digest, part.size)
        assert form is not None
        try:
            if part is None or not await self._is_there(form[0], (), short):
                await self._upload(form, part, short)
                self._tell(Progress(status="Pushed", id=short))
        finally:
            if part is not None:
                part.remove()
        return _layer(form[0], form[1], blob, plain=plain)

    async def _is_there(self, digest: Digest, origins: tuple[str, ...], short: str) -> bool:
        if await self.run(lambda: self.repository.has_blob(digest)):
            self._tell(Progress(status="Layer already exists", id=short))
            return True
        for origin in origins:
            if await self.run(functools.partial(self.repository.mount, digest, origin)):
                self._tell(Progress(status=f"Mounted from {origin}", id=short))
                return True
        return False

    async def _upload(self, form: tuple[Digest, int], part: Part | None, short: str) -> None:
        from sampan.registry.repository import Blob

        digest, size = form
        loop = asyncio.get_running_loop()
        told = 0.0

        def sent(count: int) -> None:
            nonlocal told
            now = time.monotonic()
            if count == size or now - told >= _TELL_EVERY:
                told = now
                message = Progress(status="Pushing", id=short, current=count, total=size)
                loop.call_soon_threadsafe(self._tell, message)

        def reading() -> IO[bytes]:
            return os.fdopen(part.open() if part else self._catalog.blobs.open(digest), "rb", buffering=0)

        await self.run(lambda: self.repository.upload(Blob(digest=digest, size=size, open=reading), sent))

    def _configuration(self, image: Image) -> None:
        if not self.repository.has_blob(image.id):
            self.repository.upload(_document(image), lambda _count: None)

    def _origins(self, images: Iterable[Image], reference: Reference) -> tuple[str, ...]:
        """Repositories of the same registry that are likely to have layers of the images."""
        chain = {chain_id for image in images for chain_id in image.chain}
        kin: Iterable[Image] = (other for other in self._catalog if chain & set(other.chain))
        paths = {
            name.path
            for other in kin
            for name in self._catalog.names_of(other.id)
            if name.domain == reference.domain
            and name.path != reference.path
            # Only of a name that came from the registry is it known that it is there.
            and name.digest
        }
        return tuple(sorted(paths))[:_ORIGINS]


def _layer(digest: Digest, size: int, blob: Descriptor, *, plain: bool) -> Descriptor:
    media_type = f"{DOCKER_LAYER}.gzip" if plain else _docker_type(blob.media_type)
    return Descriptor(media_type=media_type, digest=digest, size=size)


def _docker_type(media_type: str) -> str:
    """The type in a manifest of Docker's, which has no word for zstd."""
    return f"{DOCKER_LAYER}.gzip" if media_type == f"{OCI_LAYER}+gzip" else media_type


def _document(image: Image) -> Blob:
    import io

    from sampan.registry.repository import Blob

    raw = image.config.raw
    return Blob(digest=image.id, size=len(raw), open=lambda: io.BytesIO(raw))

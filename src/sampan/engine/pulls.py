"""Pull: from a registry's manifest to a kept image.

Laws:
- The image becomes visible when everything that its manifest names has come, was checked against digest and
  size, and is unpacked; a pull that fails or is given up leaves nothing but the parts of blobs, with which
  the next one goes on, also after the daemon died.
- A layer is unpacked while it comes, out of sight; a connection that breaks makes that wait, not begin anew.
- What is here is not fetched: a layer is known by its chain, a blob by its digest.
- A blob is fetched once, however many pulls want it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from sampan.engine import registries
from sampan.engine.telling import in_thread, told
from sampan.errors import Failure, Forbidden, InvalidArgument, NotFound, Unauthenticated, Unavailable
from sampan.images.catalog import DOCUMENT_LIMIT, Catalog, NewImage
from sampan.images.layers import Archive
from sampan.images.model import Progress
from sampan.images.turns import Turns
from sampan.spec import digest as digests
from sampan.spec import image as documents
from sampan.spec import platform as platforms
from sampan.spec.digest import Digest
from sampan.spec.image import DOCKER_LAYER, INDEXES, OCI_LAYER, Descriptor, Index, Manifest
from sampan.spec.reference import Reference
from sampan.wire import compression

if TYPE_CHECKING:
    from sampan.engine.images import Images
    from sampan.engine.model import Event
    from sampan.engine.settings import Settings
    from sampan.images.blobs import Pace, Part
    from sampan.images.directories import Early
    from sampan.images.model import Image
    from sampan.registry.client import Session
    from sampan.registry.credentials import Credentials
    from sampan.registry.repository import Document, Repository

T = TypeVar("T")

_INDEX_DEPTH = 3
_TELL_EVERY = 0.1  # seconds
_FOREIGN = ("application/vnd.docker.image.rootfs.foreign", "application/vnd.oci.image.layer.nondistributable")
_WORTHWHILE = (
    1 << 24
)  # bytes from which a layer is unpacked while it comes; of small ones others come meanwhile
_STALLED = 5  # broken connections in a row without a byte in between


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be pulled: one reference, or every tag of its repository; "" is this machine's platform."""

    reference: Reference
    credentials: Credentials
    platform: str = ""
    all_tags: bool = False


class Pulls:
    """Pulls images. ``images`` keeps them and tells of it."""

    def __init__(
        self,
        *,
        images: Images,
        catalog: Catalog,
        publish: Callable[[Event], None],
        settings: Settings,
    ) -> None:
        self._images = images
        self._catalog = catalog
        self._publish = publish
        self._settings = settings
        self._fetching = Turns()

    def pull(self, wanted: Wanted) -> AsyncGenerator[Progress, None]:
        """Messages while it goes on. Raises a Failure, in Docker's words, for what cannot be had."""
        return told(lambda tell: self._pull(wanted, tell))

    async def _pull(self, wanted: Wanted, tell: Callable[[Progress], None]) -> None:
        try:
            await self._pull_all(wanted, tell)
        except Unauthenticated as error:
            # Docker's client takes a 401 for an invitation to ask its user for a name and a password.
            raise Forbidden(str(error)) from error

    async def _pull_all(self, wanted: Wanted, tell: Callable[[Progress], None]) -> None:
        options = self._settings.options
        session = await registries.session(wanted.reference, wanted.credentials, options.registries, tell)
        with ThreadPoolExecutor(options.max_downloads, "pull") as threads, contextlib.closing(session):
            work = _Pull(self._images, self._catalog, session, threads, self._fetching, tell)
            if wanted.all_tags:
                references = [wanted.reference.at_tag(tag) for tag in await work.run(session.tags)]
            else:
                references = [wanted.reference.tagged()]
            for reference in references:
                await work.image(reference, wanted.platform)
                self._publish(registries.event("pull", reference))


class _Pull:
    """One pull. ``threads`` bounds how much goes on at once."""

    def __init__(
        self,
        images: Images,
        catalog: Catalog,
        session: Session,
        threads: ThreadPoolExecutor,
        fetching: Turns,
        tell: Callable[[Progress], None],
    ) -> None:
        self._images = images
        self._catalog = catalog
        self._session = session
        self._threads = threads
        self._fetching = fetching
        self._tell = tell

    async def run(self, work: Callable[[], T]) -> T:
        """Do ``work`` in a thread. Cancelled, it is told so and waited for."""
        return await in_thread(self._threads, work, cancel=self._session.cancel)

    async def image(self, reference: Reference, platform: str) -> None:
        """Pull one image, and say whether it was new."""
        name = reference.digest or reference.tag or ""
        repository, document = await self.run(lambda: self._session.reading(name))
        self._tell(Progress(status=f"Pulling from {reference.path}", id=name))
        top = document.digest
        manifest, index = await self._choose(repository, document, platform)
        before = self._catalog.owner(reference)
        names = _names(reference, top)
        here = index is not None and self._is_here(reference, manifest, index)
        image = self._present(manifest, names, index) or await self._obtain(
            repository, manifest, names, index
        )
        self._tell(Progress(status=f"Digest: {top}"))
        fresh = not here and (before is None or before.id != image.id)
        words = "Downloaded newer image for" if fresh else "Image is up to date for"
        self._tell(Progress(status=f"Status: {words} {reference.familiar}"))

    async def _choose(
        self, repository: Repository, document: Document, platform: str
    ) -> tuple[Manifest, Index | None]:
        """The manifest of the platform: the document itself, or that which an index names for it.

        And the index, if the document is one that lists the manifest itself.
        """
        index: Index | None = None
        for depth in range(_INDEX_DEPTH):
            if document.media_type not in INDEXES and not _is_index(document.raw):
                manifest = documents.parse_manifest(document.raw, document.media_type)
                return manifest, index if depth == 1 else None
            index = documents.parse_index(document.raw, document.media_type)
            chosen = _for_platform(index.manifests, platform)
            document = await self.run(lambda: repository.manifest(chosen.digest))  # noqa: B023 - awaited here
        raise InvalidArgument(f"an index of the image leads to more than {_INDEX_DEPTH - 1} others")

    def _is_here(self, reference: Reference, manifest: Manifest, index: Index) -> bool:
        """Whether a name leads to an index of which the manifest's image is here."""
        known = self._catalog.indexes
        return known.leads(reference.canonical, index) and known.has(index, manifest.digest)

    def _present(self, manifest: Manifest, names: tuple[Reference, ...], index: Index | None) -> Image | None:
        """The image, if all that the manifest names is here, and so are the names, to the same index."""
        image = self._catalog.get(manifest.config.digest)
        if image is None:
            return None
        known = self._catalog.indexes
        same = image.manifest == manifest.digest if index is None else known.has(index, manifest.digest)
        named = all(
            (owner := self._catalog.owner(name)) is not None
            and (known.named(name.canonical) is None if index is None else known.leads(name.canonical, index))
            and (index is not None or owner.id == image.id)
            for name in names
        )
        whole = len(manifest.layers) == len(image.chain) and all(
            self._has(chain_id, layer.digest)
            for chain_id, layer in zip(image.chain, manifest.layers, strict=True)
        )
        return image if same and named and whole else None

    def _has(self, chain_id: Digest, blob: Digest) -> bool:
        """Whether a layer is here, and its archive, or is to do without."""
        layer = self._catalog.layers.get(chain_id)
        return layer is not None and (
            self._catalog.blobs.has(blob) or self._catalog.layers.dropping.is_spared(layer, blob)
        )

    async def _obtain(
        self,
        repository: Repository,
        manifest: Manifest,
        names: tuple[Reference, ...],
        index: Index | None,
    ) -> Image:
        raw = await self._configuration(repository, manifest)
        config = documents.parse_image(raw)
        if len(config.diff_ids) != len(manifest.layers):
            raise InvalidArgument(
                f"invalid manifest: it has {len(manifest.layers)} layers, the image's configuration "
                f"{len(config.diff_ids)}"
            )
        chain = digests.chain_ids(config.diff_ids)
        steps = []
        for diff_id, chain_id, layer in zip(config.diff_ids, chain, manifest.layers, strict=True):
            _check_layer(layer)
            here = self._has(chain_id, layer.digest)
            short = digests.short(layer.digest)
            self._tell(Progress(status="Already exists" if here else "Pulling fs layer", id=short))
            archive = Archive(
                digest=layer.digest,
                size=layer.size,
                compression="",
                media_type=layer.media_type,
                kept=True,
                fetch=functools.partial(self._fetch, repository, layer),
            )
            steps.append((diff_id, archive))
        try:
            with self._catalog.layers.holding() as hold:
                await self._catalog.layers.obtain_chain(hold, steps, self._extracting, self._extracted)
                listing = index.raw if index else None
                new = NewImage(raw=raw, names=names, manifest=manifest.raw, index=listing)
                return (await self._images.keep([new], hold))[0]
        except BaseException:
            await asyncio.shield(self._catalog.garbage.sweep(layer.digest for layer in manifest.layers))
            raise

    def _extracting(self, _diff_id: Digest, archive: Archive) -> None:
        short, size = digests.short(archive.digest), archive.size
        self._tell(Progress(status="Extracting", id=short, current=size, total=size))

    def _extracted(self, archive: Archive) -> None:
        self._tell(Progress(status="Pull complete", id=digests.short(archive.digest)))

    async def _configuration(self, repository: Repository, manifest: Manifest) -> bytes:
        config = manifest.config
        if config.size > DOCUMENT_LIMIT:
            raise InvalidArgument(f"the image's configuration is larger than {DOCUMENT_LIMIT} bytes")
        known = self._catalog.get(config.digest)
        if known is not None:
            return known.config.raw

        def fetch() -> bytes:
            found = bytearray()
            for block in repository.blob(config.digest)[1]:
                found += block
                if len(found) > config.size:
                    break
            return bytes(found)

        raw = await self.run(fetch)
        if digests.of(raw) != config.digest or len(raw) != config.size:
            raise Unavailable(f"the registry sent another configuration than {config.digest}")
        return raw

    async def _fetch(
        self,
        repository: Repository,
        layer: Descriptor,
        unpacked: bool,
    ) -> tuple[Part, Early | None]:
        """The layer's blob, whole and checked, and where it is ``unpacked`` already."""
        directories = self._catalog.layers.directories
        async with self._fetching.of(layer.digest):
            part = await asyncio.to_thread(self._catalog.blobs.partial, layer.digest)
            loop = asyncio.get_running_loop()
            early: list[Early] = []

            def tell(message: Progress) -> None:
                loop.call_soon_threadsafe(self._tell, message)

            def begin(kind: str, pace: Pace) -> None:
                early.append(directories.begin_early(part, kind, pace, slow=True))

            def begun() -> None:
                loop.call_soon_threadsafe(begin, compression.detect(part.head), part.follow())

            follows = unpacked and directories.follows and layer.size >= _WORTHWHILE
            download = Download(repository, layer, part, tell, begun if follows else None)
            whole = False
            try:
                try:
                    await self.run(download.run)
                finally:
                    part.close()
                if part.digest != layer.digest or part.size != layer.size:
                    part.remove()
                    raise Unavailable(
                        f"filesystem layer verification failed for digest {layer.digest}: got {part.digest} "
                        f"of {part.size} bytes"
                    )
                whole = part.follower is not None
            finally:
                if not whole:
                    await asyncio.shield(directories.end_early(early))
            self._tell(Progress(status="Download complete", id=digests.short(layer.digest)))
            return part, early[0] if whole else None


class Download:
    """Fetches one blob into a part, from where the part ends; runs in a thread.

    ``begun``, if any, is called once, when the part's first bytes are here.
    """

    def __init__(
        self,
        repository: Repository,
        layer: Descriptor,
        part: Part,
        tell: Callable[[Progress], None],
        begun: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._begun = begun
        self._repository = repository
        self._layer = layer
        self._part = part
        self._tell = tell
        self._clock = clock
        self._told = 0.0

    def run(self) -> None:
        from sampan.registry.transport import Broken

        broken = 0
        while self._part.size < self._layer.size:
            before = self._part.size
            try:
                self._receive()
                if self._part.size == before:
                    raise Broken(f"blob {self._layer.digest}: the registry sent nothing")
            except Broken:
                broken = 0 if self._part.size > before else broken + 1
                if broken >= _STALLED:
                    raise
        self._report(final=True)

    def _receive(self) -> None:
        start, blocks = self._repository.blob(self._layer.digest, self._part.size)
        if start != self._part.size:
            self._part.restart()
        with contextlib.closing(blocks):  # type: ignore[type-var]  # a generator
            for block in blocks:
                self._part.write(block)
                if self._begun is not None and len(self._part.head) >= compression.MAGIC_LENGTH:
                    self._begun()
                    self._begun = None
                if self._part.size > self._layer.size:
                    raise Unavailable(
                        f"blob {self._layer.digest}: the registry sends more than {self._layer.size} bytes"
                    )
                self._report()

    def _report(self, *, final: bool = False) -> None:
        now = self._clock()
        if final or now - self._told >= _TELL_EVERY:
            self._told = now
            short, total = digests.short(self._layer.digest), self._layer.size
            self._tell(Progress(status="Downloading", id=short, current=self._part.size, total=total))


def _names(reference: Reference, top: Digest) -> tuple[Reference, ...]:
    """The names that a pulled image gets: its tag, and the digest that it was found under."""
    by_digest = reference.at_digest(top)
    if reference.tag and not reference.digest:
        return reference, by_digest
    return (by_digest,)


def _is_index(raw: bytes) -> bool:
    """Whether a document without a telling media type lists manifests."""
    try:
        return bool(documents.parse_index(raw).manifests)
    except Failure:
        return False


def _check_layer(layer: Descriptor) -> None:
    if layer.media_type.startswith(_FOREIGN):
        raise InvalidArgument(
            f"layer {layer.digest} is foreign ({layer.media_type}): it is for Windows and is not pulled"
        )
    if not layer.media_type.startswith((DOCKER_LAYER, OCI_LAYER)):
        raise InvalidArgument(
            f"unsupported media type {layer.media_type or 'none'} of layer {layer.digest}: this is no image"
        )


def _for_platform(manifests: Sequence[Descriptor], platform: str) -> Descriptor:
    """The manifest for a platform, the most fitting variant of it first."""
    system, architecture, variant = platforms.parse(platform)

    def fits(found: Descriptor) -> bool:
        has = found.platform or {}
        return has.get("os") == system and has.get("architecture") == architecture

    fitting = [found for found in manifests if fits(found)]
    exact = [found for found in fitting if (found.platform or {}).get("variant", "") == variant]
    chosen: Iterable[Descriptor] = exact or (() if variant else fitting)
    for found in chosen:
        return found
    shown = "/".join(part for part in (system, architecture, variant) if part)
    raise NotFound(f"no matching manifest for {shown} in the manifest list entries")

"""Caches of builds in a registry: a manifest whose configuration are the records, and their layers.

Laws: the manifest goes last, after all that it names; what comes from a registry is taken by its digest and
its size alone, and only what is not here is fetched. An image under the name is told apart, and not taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from sampan.engine import registries
from sampan.engine.cachetransfer import CONFIG_TYPE, CacheDescriptor, CacheManifest, CacheTransfer, described
from sampan.engine.pulls import Download
from sampan.engine.pushes import Push
from sampan.engine.telling import in_thread
from sampan.errors import InvalidArgument
from sampan.images.blobs import Part
from sampan.spec import digest as digests
from sampan.spec.digest import Digest
from sampan.spec.image import DOCKER_LAYER, OCI_LAYER, OCI_MANIFEST, Descriptor

if TYPE_CHECKING:
    from sampan.engine.settings import Settings
    from sampan.images.catalog import Catalog
    from sampan.images.compressed import CompressedForms
    from sampan.registry.client import Session
    from sampan.registry.credentials import Credentials
    from sampan.registry.repository import Repository
    from sampan.spec.reference import Reference

T = TypeVar("T")


class RegistryCaches:
    """The use case."""

    def __init__(
        self, *, transfer: CacheTransfer, catalog: Catalog, forms: CompressedForms, settings: Settings
    ) -> None:
        self._transfer = transfer
        self._catalog = catalog
        self._forms = forms
        self._settings = settings

    async def take(self, reference: Reference, credentials: Credentials) -> int | None:
        """Remember the steps of the cache of that name: how many. None if something else lies there.

        InvalidArgument for a cache that is not what it says, NotFound if there is nothing.
        """
        options = self._settings.options
        session = await registries.session(reference, credentials, options.registries)
        with (
            ThreadPoolExecutor(options.max_downloads, "cache") as threads,
            contextlib.closing(session),
        ):
            name = reference.digest or reference.tag or ""
            repository, found = await in_thread(threads, lambda: session.reading(name), cancel=session.cancel)
            if not _is_cache(found.raw):
                return None
            return await self._transfer.take_from(_Registry(repository, session, threads), found.raw)

    async def push(self, keys: Iterable[str], reference: Reference, credentials: Credentials) -> Digest:
        """Put the steps of these keys that are still remembered under a name; the manifest's digest."""
        if reference.digest:
            raise InvalidArgument("cannot push a digest reference")
        options = self._settings.options
        layers = self._catalog.layers
        session = await registries.session(reference, credentials, options.registries)
        try:
            with (
                layers.holding() as hold,
                ThreadPoolExecutor(options.max_uploads, "cache") as threads,
                contextlib.closing(session),
                self._catalog.blobs.workspace() as workspace,
            ):
                records, archives = self._transfer.remembered(keys, hold)
                for blob in archives:
                    hold.pin(blob)
                work = Push(self._catalog, self._forms, session, threads, workspace, lambda _progress: None)
                kept = [
                    Descriptor(media_type=layer.media_type, digest=blob, size=layer.blob_size)
                    for blob, layer in archives.items()
                ]
                sent = await work.layers(kept, ())
                pairs = [
                    (layer.diff_id, _oci(form)) for layer, form in zip(archives.values(), sent, strict=True)
                ]
                config, manifest = described(records, pairs)
                return await work.run(lambda: _put(work.repository, reference.tag or "", config, manifest))
        finally:
            # What was forgotten meanwhile has left behind what was held.
            await asyncio.shield(self._catalog.garbage.sweep(hold.blobs))


def _put(repository: Repository, tag: str, config: bytes, manifest: bytes) -> Digest:
    from sampan.registry.repository import Blob

    digest = digests.of(config)
    if not repository.has_blob(digest):
        blob = Blob(digest=digest, size=len(config), open=lambda: io.BytesIO(config))
        repository.upload(blob, lambda _count: None)
    return repository.put_manifest(tag, manifest, OCI_MANIFEST)


def _oci(form: Descriptor) -> dict[str, Any]:
    """A layer as a manifest of OCI's names it."""
    document = dict(form.document())
    if form.media_type.startswith(DOCKER_LAYER):
        compression = form.media_type.removeprefix(DOCKER_LAYER).replace(".", "+")
        document["mediaType"] = f"{OCI_LAYER}{compression}"
    return document


def _is_cache(raw: bytes) -> bool:
    try:
        return msgspec.json.decode(raw, type=CacheManifest).config.media_type == CONFIG_TYPE
    except msgspec.MsgspecError:
        return False


class _Registry:
    """A repository as a cache's source."""

    def __init__(self, repository: Repository, session: Session, threads: ThreadPoolExecutor) -> None:
        self._repository = repository
        self._session = session
        self._threads = threads

    async def _run(self, work: Callable[[], T]) -> T:
        return await in_thread(self._threads, work, cancel=self._session.cancel)

    async def document(self, descriptor: CacheDescriptor) -> bytes:
        def fetch() -> bytes:
            found = bytearray()
            for block in self._repository.blob(Digest(descriptor.digest))[1]:
                found += block
                if len(found) > descriptor.size:
                    break
            return bytes(found)

        data = await self._run(fetch)
        if digests.of(data) != descriptor.digest:
            raise InvalidArgument(f"this is no build cache: {descriptor.digest} is not what lies there")
        return data

    async def archive(self, descriptor: CacheDescriptor, path: str) -> Part:
        wanted = Descriptor(
            media_type=descriptor.media_type, digest=Digest(descriptor.digest), size=descriptor.size
        )
        part = Part(path)
        try:
            await self._run(Download(self._repository, wanted, part, lambda _progress: None).run)
        finally:
            part.close()
        return part

"""What builds remember, brought elsewhere and back: in an image (inline), and as an OCI manifest
that lies in a layout or a registry (``registrycaches``).

A record is a step's key, the layers that it came to, and the time that it gives to an image. Laws:
- Layers are taken by their digests alone: what a record promises and its archive is not is refused, and
  nothing of it stays.
- A key says what a step is made from, not that its outcome is honest: whoever takes a cache trusts who made
  it, as with the images that it holds. Nothing but keys of steps can be brought in.
"""

from __future__ import annotations

import asyncio
import functools
import re
import tarfile
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import msgspec

from sampan.errors import InvalidArgument
from sampan.images.blobs import Part
from sampan.images.layers import Archive
from sampan.images.loading import pump
from sampan.spec import digest as digests
from sampan.spec import foreign
from sampan.spec import image as documents
from sampan.spec.digest import Digest
from sampan.spec.image import OCI_MANIFEST
from sampan.wire import tar

if TYPE_CHECKING:
    from sampan.engine.buildcache import BuildCache, Remembered
    from sampan.images.catalog import Catalog
    from sampan.images.directories import Early
    from sampan.images.holds import Hold
    from sampan.images.model import Image, Layer

INLINE = "sampan.buildcache.v1"
"""The member of an image's configuration that holds records."""
CONFIG_TYPE = "application/vnd.sampan.buildcache.config.v1+json"
_KEY = re.compile(r"[0-9a-f]{64}")
DOCUMENT_LIMIT = 16 << 20
_RECORDS = 10_000
_PIECE = 1 << 20
_BLOCK = 512


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One step; ``layers`` are diff ids, bottom first; ``created_ns`` since 1970."""

    key: str
    layers: tuple[str, ...]
    created_ns: int = 0
    words: str = ""


class InlineRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One step of the image that tells of it: ``layers`` counts how many of its own are the step's."""

    key: str
    layers: int
    created_ns: int = 0
    words: str = ""


class CacheConfig(msgspec.Struct, frozen=True, kw_only=True):
    records: tuple[Record, ...]
    diff_ids: dict[str, str]
    """The layer of each archive, by its digest."""


def inline(records: Iterable[Remembered], chain: Sequence[Digest]) -> list[dict[str, Any]]:
    """Records of the steps that an image's own layers came from."""
    places = {chain_id: number for number, chain_id in enumerate(chain, 1)}
    return [
        {
            "key": one.key,
            "layers": places[one.chain_id],
            "created_ns": one.created_ns,
            "words": one.words,
        }
        for one in sorted(records, key=lambda record: record.key)
        if one.chain_id in places
    ]


class CacheDescriptor(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    digest: str
    media_type: str
    size: Annotated[int, msgspec.Meta(ge=0)] = 0


class CacheManifest(msgspec.Struct, frozen=True, kw_only=True):
    config: CacheDescriptor
    layers: list[CacheDescriptor]


class Source(Protocol):
    """Where a cache lies. Digests are well formed; what comes is checked by them."""

    async def document(self, descriptor: CacheDescriptor) -> bytes: ...

    async def archive(self, descriptor: CacheDescriptor, path: str) -> Part:
        """A layer's archive as a new file at ``path``, closed."""
        ...


class CacheTransfer:
    """The use case."""

    def __init__(self, *, catalog: Catalog, cache: BuildCache) -> None:
        self._catalog = catalog
        self._cache = cache

    async def take_inline(self, image: Image) -> int:
        """Remember what an image that is here tells of its steps: how many they are."""
        try:
            document = foreign.decode(self._catalog.blobs.read(image.id))
            records = msgspec.convert(document.get(INLINE, []), type=list[InlineRecord])
        except (ValueError, msgspec.ValidationError):
            return 0  # another's member of that name
        taken = 0
        for record in records[:_RECORDS]:
            if _KEY.fullmatch(record.key) and 0 < record.layers <= len(image.chain):
                if self._cache.get(record.key) is None:
                    chain_id = image.chain[record.layers - 1]
                    await self._cache.put(record.key, chain_id, record.words, record.created_ns)
                taken += 1
        return taken

    def remembered(self, keys: Iterable[str], hold: Hold) -> tuple[list[Record], dict[Digest, Layer]]:
        """The steps of these keys that are still remembered, and their layers by the digest of the archive.

        What they need stays as long as ``hold`` does.
        """
        layers = self._catalog.layers
        records: list[Record] = []
        archives: dict[Digest, Layer] = {}
        for key in dict.fromkeys(keys):
            found = self._cache.get(key)
            if found is None or not found.words:
                continue
            chain = list(reversed(layers.chain(found.chain_id)))
            for layer in chain:
                shown = layers.dropping.shown(layer, hold)
                archives[shown.blob] = shown
            diff_ids = tuple(layer.diff_id for layer in chain)
            records.append(Record(key=key, layers=diff_ids, created_ns=found.created_ns, words=found.words))
        records.sort(key=lambda record: record.key)
        return records, dict(sorted(archives.items()))

    async def export(self, keys: Iterable[str]) -> AsyncIterator[bytes]:
        """An archive of an OCI layout: the steps of these keys that are still remembered, with all layers."""
        with self._catalog.layers.holding() as hold:
            records, archives = self.remembered(keys, hold)
            config, manifest = described(
                records,
                [
                    (layer.diff_id, _descriptor(layer.media_type, blob, layer.blob_size))
                    for blob, layer in archives.items()
                ],
            )
            yield _file("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
            index = {
                "schemaVersion": 2,
                "manifests": [_descriptor(OCI_MANIFEST, digests.of(manifest), len(manifest))],
            }
            yield _file("index.json", documents.encode(index))
            for data in (config, manifest):
                yield _file(_place(digests.of(data)), data)
            for blob in archives:
                async for piece in self._blob(blob):
                    yield piece
            yield bytes(2 * _BLOCK)

    async def _blob(self, digest: Digest) -> AsyncIterator[bytes]:
        await self._catalog.layers.dropping.bring(digest)
        size = self._catalog.blobs.size(digest)
        yield tar.header(tar.Member(name=_place(digest).encode(), size=size))
        with open(self._catalog.blobs.open(digest), "rb", buffering=0) as file:
            while piece := await asyncio.to_thread(file.read, _PIECE):
                yield piece
        yield bytes(tar.padding(size))

    # ------------------------------------------------------------------ taking

    async def take(self, body: AsyncIterable[bytes]) -> int:
        """Remember the steps of an archived OCI layout: how many. InvalidArgument for one that is none."""
        with self._catalog.blobs.workspace() as workspace:
            sent = Part(f"{workspace}/sent")
            try:
                await pump(body, lambda pieces: _write(sent, pieces))
            finally:
                sent.close()
            try:
                with tarfile.open(sent.path, mode="r:") as archive:
                    index = msgspec.json.decode(_read(archive, "index.json"), type=_Index)
                    if len(index.manifests) != 1:
                        raise InvalidArgument("this is no build cache: it has not one manifest")
                    top = _checked(archive, index.manifests[0].digest)
                    return await self.take_from(_Layout(archive), top)
            except (tarfile.TarError, KeyError, EOFError, msgspec.MsgspecError) as error:
                raise InvalidArgument(f"this is no build cache: {error}") from None

    async def take_from(self, source: Source, raw: bytes) -> int:
        """Remember the steps of the manifest ``raw``, whose other parts ``source`` has: how many.

        InvalidArgument for one that is no cache's.
        """
        try:
            manifest = msgspec.json.decode(raw, type=CacheManifest)
            if manifest.config.media_type != CONFIG_TYPE:
                raise InvalidArgument(
                    f"this is no build cache: its config is {manifest.config.media_type[:100]}"
                )
            for part in (manifest.config, *manifest.layers):
                digests.parse(part.digest)
            if manifest.config.size > DOCUMENT_LIMIT:
                raise InvalidArgument("this is no build cache: its config is too large")
            config = msgspec.json.decode(await source.document(manifest.config), type=CacheConfig)
            kinds = {layer.digest: layer for layer in manifest.layers}
            archives = {diff_id: kinds[blob] for blob, diff_id in config.diff_ids.items() if blob in kinds}
            taken = 0
            for record in config.records[:_RECORDS]:
                if not _KEY.fullmatch(record.key):
                    raise InvalidArgument(f"this is no build cache: {record.key[:100]!r} is no key")
                if self._cache.get(record.key) is None:
                    await self._remember(source, record, archives)
                taken += 1
        except (KeyError, msgspec.MsgspecError) as error:
            raise InvalidArgument(f"this is no build cache: {error}") from None
        return taken

    async def _remember(
        self, source: Source, record: Record, archives: Mapping[str, CacheDescriptor]
    ) -> None:
        layers = self._catalog.layers
        with self._catalog.blobs.workspace() as workspace, layers.holding() as hold:
            steps = []
            for depth, diff_id in enumerate(record.layers):
                layer = archives[diff_id]
                fetch = functools.partial(_fetched, source, layer, f"{workspace}/{depth}")
                archive = Archive(
                    digest=Digest(layer.digest),
                    size=layer.size,
                    compression="",
                    media_type=layer.media_type,
                    fetch=fetch,
                )
                steps.append((Digest(diff_id), archive))
            try:
                chain = await layers.obtain_chain(hold, steps, lambda _diff_id, _archive: None)
                await self._cache.put(
                    record.key, chain[-1] if chain else None, record.words or "imported", record.created_ns
                )
            except BaseException:
                hold.end()
                await asyncio.shield(self._catalog.garbage.sweep(hold.blobs))
                raise


async def _fetched(
    source: Source, layer: CacheDescriptor, path: str, _unpacked: bool
) -> tuple[Part, Early | None]:
    """The archive as a part that is what its descriptor says."""
    part = await source.archive(layer, path)
    if (part.digest, part.size) != (layer.digest, layer.size):
        raise InvalidArgument(f"this is no build cache: {layer.digest} is not what lies there")
    return part, None


def described(
    records: Sequence[Record], archives: Sequence[tuple[Digest, dict[str, Any]]]
) -> tuple[bytes, bytes]:
    """The configuration and the manifest of a cache: ``archives`` are (diff id, descriptor) of its layers."""
    config = msgspec.json.encode(
        CacheConfig(
            records=tuple(records),
            diff_ids=dict(sorted((descriptor["digest"], diff_id) for diff_id, descriptor in archives)),
        )
    )
    manifest = documents.encode(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": _descriptor(CONFIG_TYPE, digests.of(config), len(config)),
            "layers": [descriptor for _, descriptor in archives],
        }
    )
    return config, manifest


class _Layout:
    """An OCI layout that was sent as an archive."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self._reading = asyncio.Lock()

    async def document(self, descriptor: CacheDescriptor) -> bytes:
        return _checked(self._archive, descriptor.digest)

    async def archive(self, descriptor: CacheDescriptor, path: str) -> Part:
        # One after the other: they share one position in the file that was sent.
        async with self._reading:
            return await asyncio.to_thread(_extracted, self._archive, descriptor.digest, path)


class _Index(msgspec.Struct, frozen=True, kw_only=True):
    manifests: list[CacheDescriptor]


def _descriptor(kind: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest, "size": size}


def _place(digest: str) -> str:
    digests.parse(digest)
    return f"blobs/{digest.replace(':', '/')}"


def _file(name: str, data: bytes) -> bytes:
    head = tar.header(tar.Member(name=name.encode(), size=len(data)))
    return head + data + bytes(tar.padding(len(data)))


def _member(archive: tarfile.TarFile, name: str) -> tarfile.TarInfo:
    try:
        member = archive.getmember(name)
    except KeyError:
        member = archive.getmember(f"./{name}")
    if not member.isreg():
        raise InvalidArgument(f"this is no build cache: {name} is no file")
    return member


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    member = _member(archive, name)
    file = archive.extractfile(member)
    if file is None or member.size > DOCUMENT_LIMIT:
        raise InvalidArgument(f"this is no build cache: {name} is too large")
    return file.read()


def _checked(archive: tarfile.TarFile, digest: str) -> bytes:
    data = _read(archive, _place(digest))
    if digests.of(data) != digest:
        raise InvalidArgument(f"this is no build cache: {digest} is not what lies there")
    return data


def _extracted(archive: tarfile.TarFile, digest: str, path: str) -> Part:
    file = archive.extractfile(_member(archive, _place(digest)))
    assert file is not None
    part = Part(path)
    try:
        while piece := file.read(_PIECE):
            part.write(piece)
    finally:
        part.close()
    return part


def _write(part: Part, pieces: Iterable[bytes]) -> None:
    for piece in pieces:
        part.write(piece)

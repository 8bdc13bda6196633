"""Save: kept images as one tar stream that is a docker-save archive and an OCI layout at once.

Laws: the same images give the same bytes, whenever and in whatever order of loading: members are sorted,
times are zero, and blobs go out as they came in. What is streamed is held, so that removing an image
meanwhile breaks nothing.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from sampan.images.catalog import Catalog
from sampan.images.layout import NAME_ANNOTATION, REF_ANNOTATION
from sampan.images.model import Image, Span
from sampan.spec import digest as digests
from sampan.spec import image as documents
from sampan.spec.digest import Digest
from sampan.spec.image import Descriptor
from sampan.spec.reference import Reference
from sampan.wire import tar


async def save(
    catalog: Catalog, selection: Sequence[tuple[Image, tuple[Reference, ...]]]
) -> AsyncIterator[bytes | Span]:
    """The archive of images with the names that each is saved under."""
    with catalog.layers.holding() as hold:
        for image, _ in selection:
            for blob in image.blobs:
                hold.pin(blob.digest)
        try:
            async for piece in _stream(catalog, selection):
                yield piece
        finally:
            hold.end()
            await catalog.sweep(hold.blobs)


async def _stream(
    catalog: Catalog, selection: Sequence[tuple[Image, tuple[Reference, ...]]]
) -> AsyncIterator[bytes | Span]:
    files, blobs = _contents(catalog, selection)
    for directory in (b"blobs/", b"blobs/sha256/"):
        yield tar.header(tar.Member(name=directory, kind=tar.DIRECTORY, mode=0o755))
    for path in sorted({*files, *blobs}):
        name = path.encode()
        if path in files:
            data = files[path]
            yield tar.header(tar.Member(name=name, size=len(data))) + data + bytes(tar.padding(len(data)))
            continue
        yield tar.header(tar.Member(name=name, size=blobs[path].size))
        fd = catalog.blobs.open(blobs[path].digest)
        try:
            yield Span(fd=fd, size=blobs[path].size)
        finally:
            os.close(fd)
        yield bytes(tar.padding(blobs[path].size))
    yield tar.END


def _contents(
    catalog: Catalog, selection: Iterable[tuple[Image, tuple[Reference, ...]]]
) -> tuple[dict[str, bytes], dict[str, Descriptor]]:
    """The archive's documents and its layers' blobs, by path."""
    files: dict[str, bytes] = {"oci-layout": documents.encode({"imageLayoutVersion": "1.0.0"})}
    blobs: dict[str, Descriptor] = {}
    listing: list[dict[str, Any]] = []
    index: list[dict[str, Any]] = []
    repositories: dict[str, dict[str, str]] = {}
    for image, names in sorted(selection, key=lambda one: one[0].id):
        blobs |= {_path(blob.digest): blob for blob in image.blobs}
        raw, media_type = manifest_of(catalog, image)
        files[_path(image.id)] = image.config.raw
        files[_path(digests.of(raw))] = raw
        listing.append(
            {
                "Config": _path(image.id),
                "RepoTags": [name.familiar for name in names] or None,
                "Layers": [_path(blob.digest) for blob in image.blobs],
            }
        )
        index += _index_entries(raw, media_type, names)
        for name in names:
            if image.blobs and name.tag:
                top = digests.hex_of(image.blobs[-1].digest)
                repositories.setdefault(name.familiar_name, {})[name.tag] = top
    files["manifest.json"] = documents.encode(listing)
    files["index.json"] = documents.encode(
        {"schemaVersion": 2, "mediaType": documents.OCI_INDEX, "manifests": index}
    )
    if repositories:
        files["repositories"] = documents.encode(repositories)
    return files, blobs


def manifest_of(catalog: Catalog, image: Image) -> tuple[bytes, str]:
    """The manifest that the image came with, or one made for it; and its media type."""
    if image.manifest is not None:
        raw = catalog.blobs.read(image.manifest)
        return raw, documents.parse_manifest(raw).media_type
    config = Descriptor(media_type=documents.OCI_CONFIG, digest=image.id, size=len(image.config.raw))
    raw = documents.encode(
        {
            "schemaVersion": 2,
            "mediaType": documents.OCI_MANIFEST,
            "config": config.document(),
            "layers": [blob.document() for blob in image.blobs],
        }
    )
    return raw, documents.OCI_MANIFEST


def _index_entries(raw: bytes, media_type: str, names: Sequence[Reference]) -> list[dict[str, Any]]:
    """One entry for each name; an image without names has one entry without."""
    digest = digests.of(raw)
    annotations: list[dict[str, str]] = [
        {NAME_ANNOTATION: name.canonical, REF_ANNOTATION: name.tag or ""} for name in names
    ]
    return [
        Descriptor(media_type=media_type, digest=digest, size=len(raw), annotations=notes).document()
        for notes in annotations or [{}]
    ]


def _path(digest: Digest) -> str:
    return f"blobs/sha256/{digests.hex_of(digest)}"

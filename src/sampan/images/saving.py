"""Save: kept images as one tar stream that is a docker-save archive and an OCI layout at once.

An index of which several platforms are here goes as it is, with these; ``manifest.json`` has its main image.

Laws: the same images give the same bytes, whenever and in whatever order of loading: members are sorted,
times are zero, and blobs go out as they came in. What is streamed is held, so that removing an image
meanwhile breaks nothing.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, NamedTuple

from sampan.images.catalog import Catalog
from sampan.images.holds import Hold
from sampan.images.indexes import ImageIndex
from sampan.images.layout import NAME_ANNOTATION, REF_ANNOTATION
from sampan.images.model import Image, Span
from sampan.spec import digest as digests
from sampan.spec import image as documents
from sampan.spec.digest import Digest
from sampan.spec.image import Descriptor
from sampan.spec.reference import Reference
from sampan.wire import tar


class Selected(NamedTuple):
    """An image, or the index of which it is the main image, and the names that it is saved under."""

    image: Image
    names: tuple[Reference, ...]
    whole: ImageIndex | None = None


async def save(catalog: Catalog, selection: Sequence[Selected]) -> AsyncIterator[bytes | Span]:
    """The archive of images with the names that each is saved under."""
    with catalog.layers.holding() as hold:
        for one in selection:
            for digest in one.whole.blobs if one.whole else [blob.digest for blob in one.image.blobs]:
                hold.pin(digest)
        try:
            here = [_available(catalog, one, hold) for one in selection]
            async for piece in _stream(catalog, here):
                yield piece
        finally:
            hold.end()
            await catalog.garbage.sweep(hold.blobs)


def _available(catalog: Catalog, one: Selected, hold: Hold) -> Selected:
    """What can be sent of it: no index of which an archive was dropped."""
    dropping = catalog.layers.dropping
    if one.whole is not None:
        images = [image for part in one.whole.parts if (image := catalog.get(part.image_id)) is not None]
        if all(dropping.available(image, hold) is image for image in images):
            return one
    return one._replace(image=dropping.available(one.image, hold), whole=None)


async def _stream(catalog: Catalog, selection: Sequence[Selected]) -> AsyncIterator[bytes | Span]:
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
        await catalog.layers.dropping.bring(blobs[path].digest)
        fd = catalog.blobs.open(blobs[path].digest)
        try:
            yield Span(fd=fd, size=blobs[path].size)
        finally:
            os.close(fd)
        yield bytes(tar.padding(blobs[path].size))
    yield tar.END


def _contents(
    catalog: Catalog, selection: Iterable[Selected]
) -> tuple[dict[str, bytes], dict[str, Descriptor]]:
    """The archive's documents and its layers' blobs, by path."""
    files: dict[str, bytes] = {"oci-layout": documents.encode({"imageLayoutVersion": "1.0.0"})}
    blobs: dict[str, Descriptor] = {}
    listing: list[dict[str, Any]] = []
    index: list[dict[str, Any]] = []
    repositories: dict[str, dict[str, str]] = {}
    for image, names, whole in sorted(selection, key=_order):
        if whole is None:
            raw, media_type = manifest_of(catalog, image)
            layers = image.blobs
            files[_path(image.id)] = image.config.raw
            blobs |= {_path(blob.digest): blob for blob in layers}
        else:
            raw, media_type = whole.document.raw, whole.document.media_type
            layers = _platforms(catalog, whole, files, blobs)
        files[_path(digests.of(raw))] = raw
        listing.append(
            {
                "Config": _path(image.id),
                "RepoTags": [name.familiar for name in names] or None,
                "Layers": [_path(blob.digest) for blob in layers],
            }
        )
        index += _index_entries(raw, media_type, names)
        for name in names:
            if layers and name.tag:
                top = digests.hex_of(layers[-1].digest)
                repositories.setdefault(name.familiar_name, {})[name.tag] = top
    files["manifest.json"] = documents.encode(listing)
    files["index.json"] = documents.encode(
        {"schemaVersion": 2, "mediaType": documents.OCI_INDEX, "manifests": index}
    )
    if repositories:
        files["repositories"] = documents.encode(repositories)
    return files, blobs


def _order(one: Selected) -> tuple[str, str]:
    return one.image.id, one.whole.digest if one.whole else ""


def _platforms(
    catalog: Catalog, index: ImageIndex, files: dict[str, bytes], blobs: dict[str, Descriptor]
) -> tuple[Descriptor, ...]:
    """Put all that is here of an index among the archive's files; answers with its main image's layers."""
    main: tuple[Descriptor, ...] = ()
    for part in index.parts:
        image = catalog.get(part.image_id)
        if image is not None:
            files[_path(image.id)] = image.config.raw
            files[_path(part.descriptor.digest)] = part.manifest.raw
            blobs |= {_path(blob.digest): blob for blob in part.manifest.layers}
        if part.image_id == index.main and not main:
            main = part.manifest.layers
    return main


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

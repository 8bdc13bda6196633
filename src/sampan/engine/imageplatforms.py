"""The platforms of an image as clients see them: what its index lists, and what of it is here.

Source: Engine API, ``ImageManifestSummary`` and ``OCIDescriptor``. An image without an index is shown as an
index of itself alone would be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from sampan.images import saving
from sampan.images.indexes import Platform, is_attestation, platform_of
from sampan.spec import digest as digests
from sampan.spec.digest import Digest
from sampan.spec.image import Descriptor

if TYPE_CHECKING:
    from sampan.images.catalog import Catalog
    from sampan.images.indexes import ImageIndex, Part
    from sampan.images.model import Image

_SUBJECT = "vnd.docker.reference.digest"
Wanted: TypeAlias = Sequence[Platform]
"""The platforms that are asked for; none for all there are."""


class ManifestSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One manifest of an image. Sizes are bytes: ``content`` of blobs, ``unpacked`` of the layers' files.

    ``subject`` is the digest of the manifest to which an attestation attests. ``platform`` is None for what
    is no image.
    """

    descriptor: Descriptor
    available: bool
    content: int
    unpacked: int
    platform: Platform | None
    containers: tuple[str, ...] = ()
    subject: str = ""


class Platforms(msgspec.Struct, frozen=True, kw_only=True):
    """What an image points at, and each manifest that this leads to."""

    target: Descriptor
    manifests: tuple[ManifestSummary, ...]


def describe(
    catalog: Catalog, image: Image, index: ImageIndex | None, users: Callable[[str], Sequence[str]]
) -> Platforms:
    """The platforms of an image; ``users`` gives the ids of the containers made from one."""
    if index is None:
        with catalog.layers.holding() as hold:
            image = catalog.layers.dropping.available(image, hold)
        raw, media_type = saving.manifest_of(catalog, image)
        target = Descriptor(media_type=media_type, digest=digests.of(raw), size=len(raw))
        content = len(raw) + len(image.config.raw) + sum(blob.size for blob in image.blobs)
        only = ManifestSummary(
            descriptor=target,
            available=True,
            content=content,
            unpacked=image.size,
            platform=platform_of(image),
            containers=tuple(users(image.id)),
        )
        return Platforms(target=target, manifests=(only,))
    parts = {part.descriptor.digest: part for part in index.parts}
    found = [_listed(catalog, one, parts.get(one.digest), users) for one in index.document.manifests]
    return Platforms(target=index.descriptor, manifests=tuple(found))


def _listed(
    catalog: Catalog, descriptor: Descriptor, part: Part | None, users: Callable[[str], Sequence[str]]
) -> ManifestSummary:
    image = catalog.get(part.image_id) if part is not None else None
    if part is None or image is None:
        subject = descriptor.annotations.get(_SUBJECT, "") if is_attestation(descriptor) else ""
        return ManifestSummary(
            descriptor=descriptor,
            available=False,
            content=0,
            unpacked=0,
            platform=None if is_attestation(descriptor) else _told(descriptor),
            subject=subject,
        )
    blobs = (part.manifest.config, *part.manifest.layers)
    return ManifestSummary(
        descriptor=descriptor,
        available=True,
        content=descriptor.size + sum(blob.size for blob in blobs),
        unpacked=image.size,
        platform=part.platform,
        containers=tuple(users(image.id)),
    )


def _told(descriptor: Descriptor) -> Platform:
    told = descriptor.platform or {}
    system, architecture, variant = (str(told.get(name) or "") for name in ("os", "architecture", "variant"))
    return system, architecture, variant


def content(catalog: Catalog, image: Image, index: ImageIndex | None) -> int:
    """Bytes of the blobs of all platforms that are here, what they share counted once."""
    digests_of = index.blobs if index is not None else {image.id, *(blob.digest for blob in image.blobs)}
    return sum(catalog.blobs.size(digest) for digest in digests_of if catalog.blobs.has(digest))


def size(catalog: Catalog, image: Image, index: ImageIndex | None) -> int:
    """Bytes of the files of all platforms that are here, what they share counted once."""
    if index is None:
        return image.size
    chains: dict[Digest, int] = {}
    for image_id in index.images:
        part = catalog.get(image_id)
        if part is not None:
            chains |= {chain_id: catalog.layers[chain_id].size for chain_id in part.chain}
    return sum(chains.values())

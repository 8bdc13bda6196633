"""What an archive of images means: docker-save layouts, old and new, and OCI image layouts.

Theory: ``manifest.json`` lists images with their configuration, names and layer files (Docker image spec
v1.2). ``index.json`` leads through manifests, perhaps through further indexes by platform, to blobs named by
digest (OCI image-layout). An archive with both is read by the first, and keeps the manifests of the second.

Laws: a blob named by digest must have that digest, and the size that its descriptor says; what an index does
not lead to is ignored; an index that leads to itself is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sampan.errors import InvalidArgument, NotFound
from sampan.images.blobs import Part
from sampan.images.catalog import DOCUMENT_LIMIT
from sampan.images.indexes import Platform, is_attestation
from sampan.images.spool import Spool
from sampan.spec import digest as digests
from sampan.spec import foreign
from sampan.spec import image as documents
from sampan.spec import platform as platforms
from sampan.spec import reference as references
from sampan.spec.image import Descriptor, ImageDocument, Manifest
from sampan.spec.reference import Reference

NAME_ANNOTATION = "io.containerd.image.name"
REF_ANNOTATION = "org.opencontainers.image.ref.name"
_BLOBS = "blobs/sha256/"
_DEPTH = 4
_MANIFEST_LIMIT = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One image of an archive. ``layers`` are bottom first, as many as the document has diff ids."""

    document: ImageDocument
    names: tuple[Reference, ...]
    layers: tuple[Part, ...]
    media_types: tuple[str, ...]
    manifest: bytes | None
    index: bytes | None = None
    """The index within the archive that lists the manifest by its platform, if one does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listed:
    """A manifest to which ``index.json`` leads: under which name, and by which index below it, if any."""

    descriptor: Descriptor
    name: str
    index: documents.Index | None


def read(spool: Spool) -> list[Found]:
    """The images of an archive; InvalidArgument names what is missing or contradicts itself."""
    if spool.part("manifest.json") is not None:
        return list(_docker_images(spool))
    if spool.part("index.json") is not None:
        return list(_oci_images(spool))
    if spool.part("repositories") is not None:
        raise InvalidArgument("invalid archive: the format of Docker before 1.10 is not supported")
    raise InvalidArgument("invalid archive: neither manifest.json nor index.json is in it")


def on_platforms(found: Sequence[Found], wanted: Sequence[Platform]) -> list[Found]:
    """The images for some platforms. NotFound in Docker's words for a name that has none for one of them."""
    chosen = [one for one in found if any(platforms.fits(_platform(one), platform) for platform in wanted)]
    for platform in wanted:
        shown = platforms.shown(*platform)
        having = [one for one in chosen if platforms.fits(_platform(one), platform)]
        if not having:
            raise NotFound(f"no images providing the requested platform {shown} found")
        provided = {name for one in having for name in one.names}
        lacking = sorted({name.familiar for one in found for name in one.names if name not in provided})
        if len(lacking) == 1:
            raise NotFound(f"image {lacking[0]} doesn't provide the requested platform ({shown})")
        if lacking:
            raise NotFound(f"images [{', '.join(lacking)}] don't provide the requested platform ({shown})")
    return chosen


def _platform(one: Found) -> Platform:
    return one.document.os, one.document.architecture, one.document.variant


# ---------------------------------------------------------------------- docker save


def _docker_images(spool: Spool) -> Iterator[Found]:
    entries = _json(spool, "manifest.json")
    if not isinstance(entries, list) or not entries:
        raise InvalidArgument("manifest.json: not a list of images")
    listed = _listed(spool)
    manifests = list(_manifests(spool, listed))
    found: list[Found] = []
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("Config"), str):
            raise InvalidArgument("manifest.json: an image without Config")
        document = _image(_bytes(spool, entry["Config"]), entry["Config"])
        paths = _strings(entry.get("Layers"), "Layers")
        _check_count(document, len(paths))
        layers = tuple(_part(spool, path) for path in paths)
        names = tuple(references.parse(name).tagged() for name in _strings(entry.get("RepoTags"), "RepoTags"))
        manifest, index = _manifest_of(document, names, manifests)
        if manifest is not None and [part.digest for part in layers] != [d.digest for d in manifest.layers]:
            manifest = index = None  # another form of the same image
        one = Found(
            document=document,
            names=names,
            layers=layers,
            media_types=_media_types(manifest, layers),
            manifest=manifest.raw if manifest else None,
            index=index.raw if index else None,
        )
        found.append(one)
        yield one
    yield from _other_platforms(spool, listed, found)


def _manifest_of(
    document: ImageDocument, names: tuple[Reference, ...], manifests: list[tuple[Manifest, _Listed]]
) -> tuple[Manifest | None, documents.Index | None]:
    """The manifest of an image and the index that lists it: of several that which has one of its names."""
    own = [(manifest, one) for manifest, one in manifests if manifest.config.digest == document.digest]
    spelled = {text for name in names for text in (name.canonical, name.familiar)}
    for manifest, one in own:
        if one.name in spelled:
            return manifest, one.index
    return (own[-1][0], own[-1][1].index) if own else (None, None)


def _other_platforms(spool: Spool, listed: list[_Listed], found: list[Found]) -> Iterator[Found]:
    """What else of their indexes is here; ``manifest.json`` names one platform of each."""
    names: dict[bytes, tuple[Reference, ...]] = {}
    for image in found:
        if image.index is not None:
            names[image.index] = names.get(image.index, ()) + image.names
    known = {image.manifest for image in found}
    for one in listed:
        if one.index is not None and one.index.raw in names and _is_whole(spool, one):
            further = _image_of(spool, one, names[one.index.raw])
            if further.manifest not in known:
                yield further


def _listed(spool: Spool) -> list[_Listed]:
    """The manifests to which an archive's ``index.json`` leads; none without one."""
    return [] if spool.part("index.json") is None else list(_walk(spool, _index(spool), 0))


def _manifests(spool: Spool, listed: list[_Listed]) -> Iterator[tuple[Manifest, _Listed]]:
    """Those of the listed manifests that are there."""
    for one in listed:
        if _has(spool, one.descriptor):
            yield documents.parse_manifest(_blob(spool, one.descriptor), one.descriptor.media_type), one


def _media_types(manifest: Manifest | None, layers: Sequence[Part]) -> tuple[str, ...]:
    if manifest is not None:
        return tuple(descriptor.media_type for descriptor in manifest.layers)
    return ("",) * len(layers)


# ---------------------------------------------------------------------- OCI layout


def _oci_images(spool: Spool) -> Iterator[Found]:
    found = 0
    for one in _select(spool, _listed(spool)):
        found += 1
        yield _image_of(spool, one, _names(one.name))
    if not found:
        raise InvalidArgument("invalid archive: index.json leads to no image for this platform")


def _image_of(spool: Spool, one: _Listed, names: tuple[Reference, ...]) -> Found:
    manifest = documents.parse_manifest(_blob(spool, one.descriptor), one.descriptor.media_type)
    document = _image(_blob(spool, manifest.config), manifest.config.digest)
    layers = tuple(_blob_part(spool, layer) for layer in manifest.layers)
    _check_count(document, len(layers))
    return Found(
        document=document,
        names=names,
        layers=layers,
        media_types=_media_types(manifest, layers),
        manifest=manifest.raw,
        index=one.index.raw if one.index else None,
    )


def _index(spool: Spool) -> documents.Index:
    return documents.parse_index(spool.document("index.json", DOCUMENT_LIMIT))


def _walk(spool: Spool, index: documents.Index, depth: int, name: str = "") -> Iterator[_Listed]:
    """Every manifest below an index, with the name that leads to it."""
    if depth > _DEPTH:
        raise InvalidArgument("invalid archive: an image index leads too deep, or to itself")
    for count, descriptor in enumerate(index.manifests):
        if count >= _MANIFEST_LIMIT:
            raise InvalidArgument(f"invalid archive: an image index of more than {_MANIFEST_LIMIT} entries")
        annotations = descriptor.annotations
        own = annotations.get(NAME_ANNOTATION) or annotations.get(REF_ANNOTATION) or name
        if descriptor.media_type in documents.INDEXES:
            if _has(spool, descriptor):
                below = documents.parse_index(_blob(spool, descriptor), descriptor.media_type)
                yield from _walk(spool, below, depth + 1, own)
        elif descriptor.media_type in documents.MANIFESTS:
            yield _Listed(descriptor=descriptor, name=own, index=index if depth else None)


def _select(spool: Spool, entries: list[_Listed]) -> Iterator[_Listed]:
    """Of an index every platform whose image is in the archive; of several platforms side by side this
    machine's, and what says nothing of a platform.
    """
    here = platforms.own_architecture()
    whole = {one.descriptor.digest for one in entries if one.index is not None and _is_whole(spool, one)}
    for one in entries:
        platform = one.descriptor.platform or {}
        own = not platform or (platform.get("os"), platform.get("architecture")) == ("linux", here)
        begun = one.index is not None and any(below.digest in whole for below in one.index.manifests)
        if one.descriptor.digest in whole or (own and not begun) or len(entries) == 1:
            yield one


def _is_whole(spool: Spool, one: _Listed) -> bool:
    """Whether an image is in the archive with all that its manifest names."""
    if is_attestation(one.descriptor) or not _has(spool, one.descriptor):
        return False
    manifest = documents.parse_manifest(_blob(spool, one.descriptor), one.descriptor.media_type)
    return all(_has(spool, blob) for blob in (manifest.config, *manifest.layers))


def _has(spool: Spool, descriptor: Descriptor) -> bool:
    return spool.part(_BLOBS + digests.hex_of(descriptor.digest)) is not None


def _names(name: str) -> tuple[Reference, ...]:
    """The name that an annotation gives; a bare tag says nothing of the repository and is passed over."""
    if ":" not in name and "/" not in name:
        return ()
    reference = references.parse(name)
    return () if reference.digest and not reference.tag else (reference.tagged(),)


# ---------------------------------------------------------------------- members


def _blob(spool: Spool, descriptor: Descriptor) -> bytes:
    return _blob_part(spool, descriptor).read(DOCUMENT_LIMIT)


def _blob_part(spool: Spool, descriptor: Descriptor) -> Part:
    part = _part(spool, _BLOBS + digests.hex_of(descriptor.digest))
    if part.size != descriptor.size:
        raise InvalidArgument(f"blob {descriptor.digest}: {part.size} bytes, expected {descriptor.size}")
    return part


def _part(spool: Spool, path: str) -> Part:
    """A member, whose digest is checked where its name claims one."""
    part = spool.part(path)
    if part is None:
        raise InvalidArgument(f"invalid archive: {json.dumps(path)} is missing")
    claimed = path.removeprefix("./").removeprefix(_BLOBS)
    if claimed != path and len(claimed) == digests.HEX_LENGTH and part.digest != f"sha256:{claimed}":
        raise InvalidArgument(f"blob sha256:{claimed}: digest is {part.digest}")
    return part


def _bytes(spool: Spool, path: str) -> bytes:
    return _part(spool, path).read(DOCUMENT_LIMIT)


def _check_count(document: ImageDocument, found: int) -> None:
    expected = len(document.diff_ids)
    if found != expected:
        raise InvalidArgument(f"invalid manifest, layers length mismatch: expected {expected}, got {found}")


def _image(raw: bytes, where: str) -> ImageDocument:
    try:
        return documents.parse_image(raw)
    except InvalidArgument as error:
        raise InvalidArgument(f"{where}: {error}") from error


def _json(spool: Spool, path: str) -> Any:
    try:
        return foreign.decode(_bytes(spool, path))
    except ValueError as error:
        raise InvalidArgument(f"{path}: invalid JSON: {error}") from error


def _strings(value: object, what: str) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidArgument(f"manifest.json: {what} is not a list of strings")
    return value

"""Images and layers as values, and what a long operation says while it runs."""

from __future__ import annotations

import datetime

from msgspec import Struct

from sampan.spec.digest import Digest
from sampan.spec.image import Descriptor, ImageDocument
from sampan.spec.reference import Reference


class Layer(Struct, frozen=True, kw_only=True):
    """One unpacked layer. ``id`` names its directory, ``blob`` the archive that it came from."""

    id: int
    chain_id: Digest
    diff_id: Digest
    parent: Digest | None
    """The chain id of the layer below."""
    blob: Digest
    media_type: str
    blob_size: int
    """Bytes of the archive as kept."""
    size: int
    """Bytes of the layer's files."""
    max_uid: int
    max_gid: int
    boot: str | None = None
    """The boot during which it was unpacked without waiting for the disk; None once it is there."""


class Image(Struct, frozen=True, kw_only=True):
    """An image that is here, with all its layers."""

    id: Digest
    config: ImageDocument
    manifest: Digest | None
    """The manifest with which it came, if it came with one."""
    chain: tuple[Digest, ...]
    """The chain ids of its layers, bottom first."""
    blobs: tuple[Descriptor, ...]
    """The archives of its layers as kept, bottom first: the manifest's own where it came with one."""
    size: int
    """Bytes of all files in all layers."""
    max_id: int
    """The largest user or group id that owns a file in it."""
    loaded_ns: int
    tagged_ns: int
    """When a tag was last set on it here; 0 for never."""

    @property
    def chain_id(self) -> Digest | None:
        """The chain id of the whole; None for an image without layers."""
        return self.chain[-1] if self.chain else None

    @property
    def created(self) -> float:
        """Seconds since the epoch; 0 where the image does not say."""
        return parse_time(self.config.created)


class Progress(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message of Docker's progress stream."""

    stream: str | None = None
    status: str | None = None
    id: str | None = None
    current: int | None = None
    total: int | None = None


class Span(Struct, frozen=True, kw_only=True):
    """The first ``size`` bytes of a file, as a piece of a stream; open until the next piece is asked for."""

    fd: int
    size: int


class Referenced(Struct, frozen=True, kw_only=True):
    """An image and a name by which it is known."""

    image: Image
    reference: Reference


def parse_time(text: str) -> float:
    """RFC 3339 as seconds since the epoch; 0 for what is no time."""
    if not text:
        return 0.0
    whole, _, fraction = text.partition(".")
    if fraction:  # Python reads six digits, documents carry nine
        digits = fraction.rstrip("Zz").partition("+")[0].partition("-")[0]
        text = f"{whole}.{digits[:6]}{fraction[len(digits) :]}"
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return moment.timestamp()


def format_time(nanoseconds: int) -> str:
    """Nanoseconds since the epoch as RFC 3339 in UTC, as Go writes it: no trailing zeros."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}Z"

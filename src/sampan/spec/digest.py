"""Content digests: ``algorithm:hex`` over exact bytes.

Laws: a digest is computed over the bytes that were received, never over a re-encoding; a digest that comes
from outside is parsed here before it becomes part of a path. Only SHA-256 is used, as in Docker; SHA-512 is
recognised so that the refusal can say what is wrong.

A *diff id* is the digest of a layer's uncompressed tar; a *chain id* names a layer together with everything
below it (OCI image-spec, config.md, "Layer ChainID").
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, NewType

from sampan.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable

Digest = NewType("Digest", str)
"""A checked ``sha256:<64 lower-case hex digits>``."""

HEX_LENGTH = 64
SHORT_LENGTH = 12
_SHAPE = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}")
_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")


def of(data: bytes | bytearray | memoryview) -> Digest:
    """The digest of ``data``."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def from_hex(digits: str) -> Digest:
    """The digest whose hexadecimal part is ``digits``; InvalidArgument if it is none."""
    return parse("sha256:" + digits)


def parse(text: str) -> Digest:
    """``text`` as a digest, or InvalidArgument in the words of Docker's digest library."""
    if _SHA256.fullmatch(text):
        return Digest(text)
    if not _SHAPE.fullmatch(text):
        raise InvalidArgument("invalid checksum digest format")
    algorithm, _, digits = text.partition(":")
    if algorithm == "sha256" and len(digits) != HEX_LENGTH:
        raise InvalidArgument("invalid checksum digest length")
    if algorithm == "sha256":
        raise InvalidArgument("invalid checksum digest format")
    raise InvalidArgument("unsupported digest algorithm")


def is_digest(text: str) -> bool:
    """Whether ``text`` is a digest that ``parse`` accepts."""
    return _SHA256.fullmatch(text) is not None


def hex_of(digest: str) -> str:
    """The hexadecimal part."""
    return digest.partition(":")[2]


def short(digest: str) -> str:
    """The twelve digits that people see."""
    return digest.removeprefix("sha256:")[:SHORT_LENGTH]


def chain_ids(diff_ids: Iterable[str]) -> tuple[Digest, ...]:
    """The chain id of each layer, bottom first. ``chain(n) = sha256(chain(n-1) + " " + diff(n))``."""
    chain: list[Digest] = []
    for diff_id in diff_ids:
        chain.append(chain_id(chain[-1] if chain else None, diff_id))
    return tuple(chain)


def chain_id(parent: str | None, diff_id: str) -> Digest:
    """The chain id of one layer over the chain ``parent``."""
    return Digest(diff_id) if parent is None else of(f"{parent} {diff_id}".encode())

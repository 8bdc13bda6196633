"""Decompression of streams: bytes in, bounded pieces of plain bytes out. No I/O.

Laws: no piece is longer than ``PIECE`` bytes (zstd: 32 MiB), whatever the input claims, so that a
decompression bomb costs time and never memory; a stream that ends early is noticed by ``finish``.

gzip goes through isal where it is installed (twice zlib's speed); zstd needs the optional ``zstandard``.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

from sampan.errors import InvalidArgument, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PIECE = 1 << 20
_ZSTD_FEED = 1 << 10  # a zstd block of 4 bytes may stand for 128 KiB, and its API has no output limit

MAGIC = (
    (b"\x1f\x8b\x08", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
)
MAGIC_LENGTH = 6


def detect(head: bytes) -> str:
    """The compression that the first bytes show: gzip, zstd, bzip2, xz, or ``""`` for none."""
    return next((kind for magic, kind in MAGIC if head.startswith(magic)), "")


class Decompressor:
    """Feed compressed bytes in order; concatenated streams are read as one, as gzip(1) does."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._make, self._failures = _codec(kind)
        self._stream: Any = self._make()
        self._fresh = True

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        """The plain bytes that ``data`` completes, piece by piece. InvalidArgument if it is damaged."""
        try:
            if self._kind == "zstd":
                for at in range(0, len(data), _ZSTD_FEED):
                    yield from self._advance(data[at : at + _ZSTD_FEED])
            else:
                yield from self._advance(data)
        except self._failures as error:
            raise InvalidArgument(f"invalid {self._kind} data: {error}") from error

    def finish(self) -> None:
        """InvalidArgument unless the input ended where a stream ends."""
        if not self._fresh and not self._stream.eof:
            raise InvalidArgument(f"unexpected end of {self._kind} data")

    def _advance(self, data: bytes | memoryview) -> Iterator[bytes]:
        while len(data):
            if self._stream.eof:
                self._stream = self._make()
                self._fresh = True
                data = bytes(data).lstrip(b"\0")  # tape padding between or after streams
                continue
            self._fresh = False
            yield from self._drain(data)
            data = self._stream.unused_data if self._stream.eof else b""

    def _drain(self, data: bytes | memoryview) -> Iterator[bytes]:
        stream = self._stream
        if self._kind == "zstd":
            if piece := stream.decompress(data):
                yield piece
        elif self._kind == "gzip":
            while piece := stream.decompress(data, PIECE):
                yield piece
                data = stream.unconsumed_tail
        else:
            piece = stream.decompress(data, PIECE)
            while piece or not (stream.needs_input or stream.eof):
                yield piece
                piece = b"" if stream.eof else stream.decompress(b"", PIECE)


def _codec(kind: str) -> tuple[Callable[[], Any], tuple[type[Exception], ...]]:
    """A maker of streams, and the exceptions by which they report damage."""
    if kind == "gzip":
        try:
            from isal import isal_zlib

            damaged: Any = isal_zlib.error
            return lambda: isal_zlib.decompressobj(31), (damaged,)
        except ImportError:
            return lambda: zlib.decompressobj(31), (zlib.error,)
    if kind == "zstd":
        try:
            import zstandard
        except ImportError as error:
            raise Unavailable("zstd needs the Python package zstandard") from error
        return lambda: zstandard.ZstdDecompressor().decompressobj(), (zstandard.ZstdError,)
    if kind == "bzip2":
        from bz2 import BZ2Decompressor

        return BZ2Decompressor, (OSError, ValueError)
    if kind == "xz":
        from lzma import LZMADecompressor, LZMAError

        return LZMADecompressor, (LZMAError,)
    raise InvalidArgument(f"unknown compression {kind!r}")

"""The bytes of an archive, read from a descriptor: decompressed and hashed on the way, taken exactly.

Laws:
- What is taken is what is hashed, and ``finish`` reads the rest, so that the digest is that of the whole
  plain stream and a stream that was cut short never passes.
- With ``Bounds`` a stream is given up as soon as it passes one, also in what trails after the archive's end.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sampan.errors import InvalidArgument
from sampan.wire import compression, tar

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = 1 << 18
_SIZE = 8  # bytes of a size that is told
_TOLD = 512 * _SIZE


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """``size``: plain bytes; ``ratio``: how many times as many as there were compressed. 0 is no bound."""

    size: int = 0
    ratio: int = 0

    def check(self, plain: int, compressed: int) -> None:
        """InvalidArgument for a stream that has passed one. What is small may be compressed as it likes."""
        if self.size and plain > self.size:
            raise InvalidArgument(f"layer is larger than the limit of {self.size} bytes")
        if self.ratio and plain > _SMALL and plain > self.ratio * compressed:
            raise InvalidArgument(
                f"layer is more than the limit of {self.ratio} times as large as its archive"
            )


_SMALL = 1 << 20  # bytes
_UNBOUNDED = Bounds()


class Source:
    """What ``origin`` gives, a descriptor or pieces of bytes.

    ``kind`` is a descriptor's compression of ``wire.compression`` (``""`` for none); ``hasher`` sees plain
    bytes. ``pace`` is for a file that still grows: a pipe on which its size is told, again and again, as
    eight bytes, and which ends when it is complete.
    """

    def __init__(
        self,
        origin: int | Iterator[bytes],
        kind: str = "",
        hasher: Any = None,
        pace: int = -1,
        bounds: Bounds = _UNBOUNDED,
    ) -> None:
        self._bounds = bounds
        self._bounded = bounds != _UNBOUNDED
        self._compressed = 0  # bytes
        if isinstance(origin, int):
            # Made now: a confined process imports nothing later.
            decompressor = compression.Decompressor(kind) if kind else None
            self._pieces = self._decompressed(
                _read(origin) if pace < 0 else _follow(origin, pace), decompressor
            )
        else:
            self._pieces = origin
        self._hasher = hasher
        self._buffer = b""
        self._at = 0
        self.taken = 0
        """Plain bytes read so far from the stream, those still in the buffer included."""

    def block(self) -> bytes | None:
        """The next 512 bytes; None at a clean end of the stream."""
        at = self._at
        end = at + 512
        if end <= len(self._buffer):
            self._at = end
            return self._buffer[at:end]
        if at == len(self._buffer) and not self._fill():
            return None
        return self.take(512)

    def take(self, size: int) -> bytes:
        """Exactly ``size`` bytes; InvalidArgument if the stream has fewer."""
        return b"".join(self.pieces(size))

    def pieces(self, size: int) -> Iterator[bytes | memoryview]:
        """Exactly ``size`` bytes in pieces; InvalidArgument if the stream has fewer."""
        while size:
            have = len(self._buffer) - self._at
            if not have:
                if not self._fill():
                    raise InvalidArgument("unexpected end of archive")
                continue
            at = self._at
            count = min(have, size)
            self._at = at + count
            size -= count
            yield self._buffer if count == len(self._buffer) else memoryview(self._buffer)[at : at + count]

    def here(self, size: int) -> memoryview | None:
        """The next ``size`` bytes if all of them are here already; None, and nothing taken, otherwise."""
        at = self._at
        end = at + size
        if end > len(self._buffer):
            return None
        self._at = end
        return memoryview(self._buffer)[at:end]

    def skip(self, size: int) -> None:
        """Pass over ``size`` bytes."""
        end = self._at + size
        if end <= len(self._buffer):
            self._at = end
            return
        for _ in self.pieces(size):
            pass

    def finish(self) -> None:
        """Read to the end of the stream."""
        while self._fill():
            pass

    def digest(self) -> str | None:
        """The digest of all plain bytes read, when a hasher was given."""
        return f"sha256:{self._hasher.hexdigest()}" if self._hasher else None

    def line(self) -> tuple[bytes, int]:
        """A line of at most 20 bytes without its newline, and the bytes it took; for sparse maps."""
        line = b""
        while not line.endswith(b"\n"):
            if len(line) > 20:
                raise InvalidArgument("invalid sparse map")
            line += self.take(1)
        return line[:-1], len(line)

    def _fill(self) -> bool:
        piece = next(self._pieces, b"")
        if not piece:
            return False
        if self._hasher is not None:
            self._hasher.update(piece)
        self.taken += len(piece)
        if self._bounded:
            self._bounds.check(self.taken, self._compressed or self.taken)
        self._buffer = piece
        self._at = 0
        return True

    def _decompressed(
        self, blocks: Iterator[bytes], decompressor: compression.Decompressor | None
    ) -> Iterator[bytes]:
        if decompressor is None:
            yield from blocks
            return
        for data in blocks:
            self._compressed += len(data)
            yield from decompressor.feed(data)
        decompressor.finish()


def _read(fd: int) -> Iterator[bytes]:
    while data := os.read(fd, _CHUNK):
        yield data


def _follow(fd: int, pace: int) -> Iterator[bytes]:
    """What is written to a file, as it is written."""
    at = 0
    while told := os.read(pace, _TOLD):
        size = int.from_bytes(told[-_SIZE:], "little")
        while at < size:
            data = os.pread(fd, min(_CHUNK, size - at), at)
            if not data:
                raise InvalidArgument("unexpected end of archive")
            at += len(data)
            yield data


def sparse_map(source: Source, member: tar.Member) -> tar.Sparse:
    """Read the rest of a sparse member's map; ``member.size`` becomes the bytes of data that then follow."""
    sparse = member.sparse
    assert sparse is not None
    while sparse.extended:
        sparse = tar.extend_map(sparse, source.take(tar.BLOCK))
    if sparse.in_data:
        lines: list[bytes] = []
        used = 0
        found = None
        while found is None:
            line, length = source.line()
            lines.append(line)
            used += length
            complete = len(lines) == 1 or len(lines) % 2 == 1
            found = tar.data_map(sparse, lines) if complete and _enough(lines) else None
        source.skip(tar.padding(used))
        sparse = found
        member.size -= used + tar.padding(used)
        if member.size < 0:
            raise InvalidArgument("invalid sparse map")
    tar.check_map(sparse, member.size)
    return sparse


def _enough(lines: list[bytes]) -> bool:
    """Whether the first line's count of pairs is there: asked before the whole map is parsed."""
    return not lines[0].isdigit() or len(lines) > 2 * int(lines[0])

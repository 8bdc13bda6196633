"""The two directions of a body, apart from when bytes come and go: what of a buffer is a request's body, and
how a stream's pieces become chunks.
"""

from __future__ import annotations

from sampan.wire.http import ChunkedDecoder, chunk

FLUSH = 64 * 1024
"""Pieces of a stream are gathered to chunks of about this size as long as its source is never waited for."""


class IncomingBody:
    """Takes exactly one request's body out of the connection's buffer. ``length`` in bytes, -1: chunked."""

    __slots__ = ("_decoder", "_left")

    def __init__(self, length: int = 0) -> None:
        self._left = max(0, length)
        self._decoder = ChunkedDecoder() if length < 0 else None

    @property
    def complete(self) -> bool:
        return self._left == 0 and (self._decoder is None or self._decoder.done)

    @property
    def left(self) -> int | None:
        """Bytes still to come; None when that is not known."""
        return self._left if self._decoder is None else None

    def take(self, buffer: bytearray) -> bytes:
        """Consume what ``buffer`` has of the body (may be b""). Raises ProtocolError."""
        if self._decoder is not None:
            return self._decoder.take(buffer)
        size = min(self._left, len(buffer))
        piece = bytes(buffer) if size == len(buffer) else bytes(memoryview(buffer)[:size])
        del buffer[:size]
        self._left -= size
        return piece


class OutgoingBody:
    """Gathers the pieces of a stream into chunks."""

    __slots__ = ("_chunked", "_pieces", "_size")

    def __init__(self, *, chunked: bool) -> None:
        self._chunked = chunked
        self._pieces: list[bytes] = []
        self._size = 0

    @property
    def empty(self) -> bool:
        return not self._pieces

    def add(self, piece: bytes) -> bool:
        """Gather a piece; True when it is time to write."""
        self._pieces.append(piece)
        self._size += len(piece)
        return self._size >= FLUSH

    def take(self) -> bytes:
        """What was gathered, as it goes over the wire; b"" when nothing was."""
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        return chunk(data) if data and self._chunked else data

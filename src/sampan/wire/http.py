"""HTTP/1.1 chunked bodies without I/O (RFC 9112, 7.1).

Laws: a decoder consumes exactly the bytes that belong to its message and leaves the rest in the buffer (what
follows may be the next message or a hijacked stream); whatever a peer sends, at most `MAX_LINE` bytes of
framing are kept. Heads of requests are parsed by httptools, in `sampan.api`.
"""

from __future__ import annotations

MAX_LINE = 4096
"""Longest chunk-size line or trailer that is accepted, in bytes."""

_HEX = frozenset(b"0123456789abcdefABCDEF")

_SIZE, _DATA, _DATA_END, _TRAILER, _DONE = range(5)


class ProtocolError(ValueError):
    """The peer broke the protocol; the connection cannot be used any more."""


class ChunkedDecoder:
    """Takes a chunked body out of a buffer, piece by piece."""

    __slots__ = ("_left", "_state", "_trailers")

    def __init__(self) -> None:
        self._state = _SIZE
        self._left = 0
        self._trailers = 0

    @property
    def done(self) -> bool:
        """The last chunk and the trailers were consumed: the rest of the buffer is not ours."""
        return self._state == _DONE

    def take(self, buffer: bytearray) -> bytes:
        """Consume what can be consumed of ``buffer`` and return the decoded bytes (may be empty)."""
        pieces: list[memoryview] = []
        position = 0
        with memoryview(buffer) as view:
            try:
                while self._state != _DONE:
                    in_data = self._state == _DATA
                    step = self._data(view, position, pieces) if in_data else self._line(buffer, position)
                    if step == position:
                        break
                    position = step
                data = b"".join(pieces)  # the one copy of what may be a large upload
            finally:
                for piece in pieces:
                    piece.release()
        del buffer[:position]
        return data

    def _data(self, view: memoryview, position: int, pieces: list[memoryview]) -> int:
        end = min(position + self._left, len(view))
        if end > position:
            pieces.append(view[position:end])
            self._left -= end - position
            if self._left == 0:
                self._state = _DATA_END
        return end

    def _line(self, buffer: bytearray, position: int) -> int:
        """Consume one line of framing; the position is unchanged when the line is not complete yet."""
        end = buffer.find(b"\r\n", position, position + MAX_LINE)
        if end < 0:
            if len(buffer) - position >= MAX_LINE:
                raise ProtocolError("chunk line too long")
            return position
        line = bytes(buffer[position:end])
        if self._state == _SIZE:
            self._left = _chunk_size(line)
            self._state = _DATA if self._left else _TRAILER
        elif self._state == _DATA_END:
            if line:
                raise ProtocolError("chunk data is longer than its size")
            self._state = _SIZE
        elif not line:
            self._state = _DONE
        else:
            self._trailers += len(line)
            if self._trailers > MAX_LINE:
                raise ProtocolError("trailers too long")
        return end + 2


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].rstrip(b" \t")
    if not 0 < len(digits) <= 16 or not _HEX.issuperset(digits):
        raise ProtocolError("malformed chunk size")
    return int(digits, 16)


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; ``data`` must not be empty, an empty chunk would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"

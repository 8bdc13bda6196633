"""HTTP/1.1 framing without I/O: chunked bodies and the head of a response (RFC 9112).

Laws: a decoder consumes exactly the bytes that belong to its message and leaves the rest in the buffer
(what follows may be the next message or a hijacked stream); whatever a peer sends, at most `MAX_LINE`
bytes of framing are kept. Requests' heads are parsed by httptools in `sampan.api`; this module serves the
server's bodies and both directions of the synchronous client, so it imports next to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_LINE = 4096
"""Longest chunk-size line or trailer that is accepted, in bytes."""

MAX_HEAD = 256 * 1024
"""Longest head of a message that is accepted, in bytes."""

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
        pieces: list[bytes] = []
        position = 0
        while self._state != _DONE:
            in_data = self._state == _DATA
            step = self._data(buffer, position, pieces) if in_data else self._line(buffer, position)
            if step == position:
                break
            position = step
        del buffer[:position]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _data(self, buffer: bytearray, position: int, pieces: list[bytes]) -> int:
        end = min(position + self._left, len(buffer))
        if end > position:
            pieces.append(bytes(memoryview(buffer)[position:end]))
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseHead:
    """Status line and header fields; field names are lower case, repeated fields joined by ", "."""

    status: int
    reason: str
    fields: dict[str, str]

    @property
    def chunked(self) -> bool:
        return self.fields.get("transfer-encoding", "").lower().endswith("chunked")

    @property
    def content_length(self) -> int | None:
        """Length of the body in bytes, None when it is chunked or ends with the connection."""
        if self.chunked or "content-length" not in self.fields:
            return None
        text = self.fields["content-length"]
        if not text.isascii() or not text.isdigit():
            raise ProtocolError("malformed Content-Length")
        return int(text)

    @property
    def has_body(self) -> bool:
        """False for statuses that never carry a body (an answer to HEAD does not either)."""
        return self.status >= 200 and self.status not in (204, 304)


def response_head(buffer: bytearray) -> ResponseHead | None:
    """Take a complete response head out of ``buffer``; None (and nothing consumed) when more is needed.

    Raises ProtocolError when this is no HTTP/1 response or the head is longer than `MAX_HEAD`.
    """
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        if len(buffer) > MAX_HEAD:
            raise ProtocolError("response head too long")
        if buffer and not buffer.startswith(b"HTTP/1."[: len(buffer)]):
            raise ProtocolError("not an HTTP response")
        return None
    status_line, *lines = bytes(buffer[:end]).decode("latin-1").split("\r\n")
    del buffer[: end + 4]
    version, _, rest = status_line.partition(" ")
    code, _, reason = rest.partition(" ")
    if not version.startswith("HTTP/1.") or len(code) != 3 or not code.isdigit():
        raise ProtocolError("not an HTTP response")
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise ProtocolError("malformed header field")
        name, value = name.lower(), value.strip()
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return ResponseHead(status=int(code), reason=reason, fields=fields)

"""The session of a build: one connection on which engine and client ask each other, as frames. Pure, no I/O.

A frame is a twelve-byte head, its kind, three zero bytes, a channel and the payload's length (big-endian),
followed by the payload. The engine opens a channel by asking on it; what the kinds mean:

    HELLO   client   one JSON object on channel 0, before all else: what is to be built, and with what
    ASK     engine   a JSON object that opens a channel: the name of a service and its arguments
    DATA    both     bytes of the channel
    END     both     this side sends no more on the channel; on channel 0 the build is over
    FAIL    client   the channel's question has no answer; the payload says why
    NOTE    both     JSON beside the data: that an agent is there, a terminal's size; on channel 0 how the
                     build goes on

The services are those that BuildKit's sessions have, so that its gRPC can be a second face of the same
engine: ``list``, ``digests``, ``fetch`` (FileSync), ``secret``, ``agent`` (SSH), ``output`` (FileSend). Ours
alone are ``archive`` (a context that is a tar) and ``shell``.

Laws:
- The client names files by number: the engine can only ask for those that it was shown.
- Each side always reads, whatever it has to send: so neither ever waits for the other in a circle.
"""

from __future__ import annotations

from struct import Struct

HELLO, ASK, DATA, END, FAIL, NOTE = range(1, 7)

HEAD = Struct(">BxxxII")
MAX_DATA = 1 << 20
"""Longest payload of DATA, in bytes."""
MAX_MESSAGE = 1 << 24
"""Longest payload of the others: a HELLO carries a Dockerfile."""

FILE = Struct(">IQ")
"""What a file of ``fetch`` begins with: its number and its size. Its bytes follow, and then one byte: whether
it stayed as it was while it was read."""
GONE = (1 << 64) - 1
"""The size of a file that is no more; nothing follows."""
DIGEST = 32
"""Bytes of a digest (SHA-256); zeros for a file that is no more."""

SECRET_LIMIT = 500 * 1024
"""Longest secret, in bytes; BuildKit's."""

FIELDS = 9
"""Of an entry: number, kind (``d``, ``f``, ``l``, ``p``), mode (octal), size, whole seconds of its time,
stamp, capability (hexadecimal), path, what a link says. Each ends in a zero byte."""


class MalformedFrame(ValueError):
    """The bytes are no session."""


def frame(kind: int, channel: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return HEAD.pack(kind, channel, len(payload)) + payload


class Splitter:
    """Takes received bytes apart. DATA comes in the pieces in which it was received."""

    __slots__ = ("_channel", "_left", "_need", "_rest")

    def __init__(self) -> None:
        self._rest = bytearray()
        self._need = 0  # so many bytes make it worth while to look at the rest again
        self._channel = 0
        self._left = 0  # bytes of a DATA frame that are still to come

    def feed(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """(kind, channel, payload) of what is complete. MalformedFrame for garbage."""
        if self._rest:
            self._rest += data
            if len(self._rest) < self._need:
                return []
            data = bytes(self._rest)
            self._rest.clear()
        found: list[tuple[int, int, bytes]] = []
        at, size = 0, len(data)
        while at < size:
            if self._left:
                end = min(size, at + self._left)
                found.append((DATA, self._channel, data[at:end]))
                self._left -= end - at
                at = end
                continue
            self._need = HEAD.size
            if size - at < HEAD.size:
                break
            kind, channel, length = HEAD.unpack_from(data, at)
            if not HELLO <= kind <= NOTE or length > (MAX_DATA if kind == DATA else MAX_MESSAGE):
                raise MalformedFrame("not a session")
            if kind == DATA:
                self._channel, self._left = channel, length
                at += HEAD.size
                continue
            self._need += length
            end = at + self._need
            if end > size:
                break
            found.append((kind, channel, data[at + HEAD.size : end]))
            at = end
        self._rest += data[at:]
        return found

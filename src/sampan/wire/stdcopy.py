"""Docker's multiplexed stream: one connection carries a container's stdout and stderr apart.

Each frame is an eight-byte header, stream number (0 stdin, 1 stdout, 2 stderr, 3 an error of the engine's),
three zero bytes and the payload's length as a big-endian 32-bit number, followed by the payload. Used by
attach, exec and logs when the container has no terminal. Pure: bytes in, values out.
"""

from __future__ import annotations

from struct import Struct

STDIN, STDOUT, STDERR, SYSTEM_ERROR = range(4)

HEADER = Struct(">BxxxI")
HEADER_SIZE = HEADER.size

MAX_FRAME = 16 * 1024 * 1024
"""Longest payload accepted on reading: no engine writes such frames, a larger length is garbage."""


class MalformedFrame(ValueError):
    """The bytes are not a multiplexed stream."""


def frame(stream: int, payload: bytes) -> bytes:
    """One frame."""
    return HEADER.pack(stream, len(payload)) + payload


def header(stream: int, length: int) -> bytes:
    """Header of a frame whose payload is sent separately."""
    return HEADER.pack(stream, length)


def parse_header(head: bytes) -> tuple[int, int]:
    """(stream, length of the payload) of a frame's ``HEADER_SIZE`` bytes; MalformedFrame for garbage."""
    stream, length = HEADER.unpack(head)
    if stream > SYSTEM_ERROR or length > MAX_FRAME or head[1:4] != b"\0\0\0":
        raise MalformedFrame("not a multiplexed stream")
    return stream, length


def split(buffer: bytes | bytearray | memoryview) -> tuple[list[tuple[int, bytes]], bytes]:
    """Split into complete frames ``(stream, payload)`` and the bytes of an incomplete one.

    Raises MalformedFrame when a header cannot be one.
    """
    view = memoryview(buffer)
    frames: list[tuple[int, bytes]] = []
    position, end = 0, len(view)
    while end - position >= HEADER_SIZE:
        stream, length = HEADER.unpack_from(view, position)
        if (
            stream > SYSTEM_ERROR
            or length > MAX_FRAME
            or bytes(view[position + 1 : position + 4]) != b"\0\0\0"
        ):
            raise MalformedFrame("not a multiplexed stream")
        start = position + HEADER_SIZE
        if end - start < length:
            break
        position = start + length
        frames.append((stream, bytes(view[start:position])))
    return frames, bytes(view[position:])

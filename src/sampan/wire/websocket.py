"""The WebSocket protocol (RFC 6455) as a server speaks it after the handshake, without I/O.

Laws: what a client sends is masked and bounded; control frames may stand between the fragments of a message;
whatever breaks the protocol is a ``ProtocolError``, after which the connection is closed.
"""

from __future__ import annotations

from struct import Struct

CONTINUATION, TEXT, BINARY = 0, 1, 2
CLOSE, PING, PONG = 8, 9, 10

LONGEST = 1 << 20
"""Bytes of a client's frame."""

_FINAL, _RESERVED, _OPCODE, _MASKED, _LENGTH = 0x80, 0x70, 0x0F, 0x80, 0x7F
_TWO, _EIGHT = Struct(">H"), Struct(">Q")
_LONGEST_CONTROL = 125


class ProtocolError(ValueError):
    """The client broke the protocol."""


def header(length: int, opcode: int = BINARY) -> bytes:
    """The head of an unfragmented frame whose payload is sent separately."""
    first = bytes((_FINAL | opcode,))
    if length <= _LONGEST_CONTROL:
        return first + bytes((length,))
    if length < 1 << 16:
        return first + b"\x7e" + _TWO.pack(length)
    return first + b"\x7f" + _EIGHT.pack(length)


def frame(payload: bytes, opcode: int = BINARY) -> bytes:
    return header(len(payload), opcode) + payload


class Decoder:
    """Takes a client's bytes, gives (opcode, payload) of its frames; those of data have the opcode BINARY."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        buffer = self._buffer + data
        found: list[tuple[int, bytes]] = []
        place = 0
        while (taken := _frame(buffer, place)) is not None:
            opcode, payload, place = taken
            found.append((opcode, payload))
        self._buffer = buffer[place:]
        return found


def _frame(buffer: bytes, place: int) -> tuple[int, bytes, int] | None:
    """(opcode, payload, place of the next one) of the frame at ``place``; None when it is not all there."""
    if len(buffer) < place + 2:
        return None
    first, second = buffer[place], buffer[place + 1]
    opcode, length = first & _OPCODE, second & _LENGTH
    if first & _RESERVED or opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
        raise ProtocolError("unknown frame")
    if not second & _MASKED:
        raise ProtocolError("a client's frame is masked")
    if opcode >= CLOSE and (length > _LONGEST_CONTROL or not first & _FINAL):
        raise ProtocolError("a control frame is short and whole")
    start = place + 2
    wide = {126: _TWO, 127: _EIGHT}.get(length)
    if wide is not None:
        if len(buffer) < start + wide.size:
            return None
        (length,) = wide.unpack_from(buffer, start)
        start += wide.size
    if length > LONGEST:
        raise ProtocolError("the frame is too long")
    end = start + 4 + length
    if len(buffer) < end:
        return None
    payload = _unmasked(buffer[start + 4 : end], buffer[start : start + 4])
    return (opcode if opcode >= CLOSE else BINARY), payload, end


def _unmasked(payload: bytes, mask: bytes) -> bytes:
    # As one large number: a loop over bytes takes a hundred times as long.
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")

"""WebSocket frames: examples of RFC 6455, and every way to cut a client's bytes."""

from __future__ import annotations

import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.wire import websocket
from sampan.wire.websocket import BINARY, CLOSE, CONTINUATION, PING, TEXT, Decoder, ProtocolError


def masked(payload: bytes, opcode: int = BINARY, *, final: bool = True) -> bytes:
    key = os.urandom(4)
    size = len(payload)
    length = (
        bytes((0x80 | size,))
        if size < 126
        else struct.pack(">BH", 0x80 | 126, size)
        if size < 1 << 16
        else struct.pack(">BQ", 0x80 | 127, size)
    )
    body = bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))
    return bytes(((0x80 if final else 0) | opcode,)) + length + key + body


def test_the_frames_of_the_rfc() -> None:
    assert Decoder().feed(bytes.fromhex("818537fa213d7f9f4d5158")) == [(BINARY, b"Hello")]
    assert websocket.frame(b"Hello", TEXT) == bytes.fromhex("810548656c6c6f")
    assert websocket.header(256) == bytes.fromhex("827e0100")
    assert websocket.header(65536) == bytes.fromhex("827f0000000000010000")


@given(
    frames=st.lists(
        st.tuples(st.sampled_from((TEXT, BINARY, CONTINUATION)), st.binary(max_size=300), st.booleans())
    ),
    cut=st.integers(1, 50),
)
def test_frames_come_whole_however_they_are_cut(frames: list[tuple[int, bytes, bool]], cut: int) -> None:
    data = b"".join(masked(payload, opcode, final=final) for opcode, payload, final in frames)
    decoder = Decoder()
    found = [one for at in range(0, len(data), cut) for one in decoder.feed(data[at : at + cut])]
    assert found == [(BINARY, payload) for _, payload, _ in frames]


def test_control_frames_and_long_ones() -> None:
    long = os.urandom(70000)
    assert Decoder().feed(masked(b"x", PING) + masked(long) + masked(b"", CLOSE)) == [
        (PING, b"x"),
        (BINARY, long),
        (CLOSE, b""),
    ]


@pytest.mark.parametrize(
    "data",
    [
        websocket.frame(b"not masked"),
        b"\xc2" + masked(b"x")[1:],
        b"\x83" + masked(b"x")[1:],
        masked(b"x" * 126, PING),
        masked(b"x", PING, final=False),
        struct.pack(">BBQ", 0x82, 0xFF, 1 << 40),
    ],
)
def test_what_breaks_the_protocol(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        Decoder().feed(data)

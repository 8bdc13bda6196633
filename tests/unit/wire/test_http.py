"""Chunked bodies, whatever way the bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.wire.http import LAST_CHUNK, MAX_LINE, ChunkedDecoder, ProtocolError, chunk


@given(
    pieces=st.lists(st.binary(min_size=1, max_size=40), max_size=8), cut=st.integers(1, 7), rest=st.binary()
)
def test_what_was_chunked_comes_back_however_it_is_cut(pieces: list[bytes], cut: int, rest: bytes) -> None:
    wire = b"".join(chunk(piece) for piece in pieces) + LAST_CHUNK + rest
    decoder, buffer, data = ChunkedDecoder(), bytearray(), b""
    for start in range(0, len(wire), cut):
        buffer += wire[start : start + cut]
        data += decoder.take(buffer)
    assert decoder.done
    assert data == b"".join(pieces)
    assert bytes(buffer) == rest


def test_extensions_and_trailers_are_dropped() -> None:
    buffer = bytearray(b"3 ;name=value\r\nabc\r\n0\r\nOne: 1\r\nTwo: 2\r\n\r\nnext")
    decoder = ChunkedDecoder()
    assert decoder.take(buffer) == b"abc"
    assert decoder.done
    assert buffer == b"next"


@pytest.mark.parametrize(
    "wire",
    [
        b"\r\n",
        b"-1\r\n",
        b"0x3\r\nabc\r\n",
        b"g\r\n",
        b"1\r\nab\r\n",
        b"11111111111111111\r\n",
        b"1;" + b"x" * MAX_LINE,
        b"0\r\n" + b"a: b\r\n" * MAX_LINE,
    ],
)
def test_garbage_is_refused(wire: bytes) -> None:
    with pytest.raises(ProtocolError):
        ChunkedDecoder().take(bytearray(wire))

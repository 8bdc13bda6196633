"""Chunked bodies and response heads, whatever way the bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.wire.http import (
    LAST_CHUNK,
    MAX_HEAD,
    MAX_LINE,
    ChunkedDecoder,
    ProtocolError,
    chunk,
    response_head,
)


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


def test_a_response_head_is_taken_when_complete() -> None:
    wire = b"HTTP/1.1 101 UPGRADED\r\nContent-Type: a/b\r\nX: 1\r\nx:2 \r\n\r\nraw"
    for size in range(len(wire) - 3):
        assert response_head(bytearray(wire[:size])) is None
    buffer = bytearray(wire)
    head = response_head(buffer)
    assert head is not None
    assert (head.status, head.reason) == (101, "UPGRADED")
    assert head.fields == {"content-type": "a/b", "x": "1, 2"}
    assert not head.has_body
    assert buffer == b"raw"


def test_how_a_body_ends() -> None:
    def read(fields: str) -> tuple[bool, int | None]:
        head = response_head(bytearray(f"HTTP/1.1 200 OK\r\n{fields}\r\n".encode()))
        assert head is not None
        return head.chunked, head.content_length

    assert read("Transfer-Encoding: chunked\r\n") == (True, None)
    assert read("content-LENGTH: 12\r\n") == (False, 12)
    assert read("") == (False, None)
    with pytest.raises(ProtocolError):
        read("Content-Length: -1\r\n")


@pytest.mark.parametrize(
    "wire",
    [b"SSH-2.0-x\r\n", b"HTTP/2 200 OK\r\n\r\n", b"HTTP/1.1 two OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nx\r\n\r\n"],
)
def test_what_is_no_response_is_refused(wire: bytes) -> None:
    with pytest.raises(ProtocolError):
        response_head(bytearray(wire))


def test_a_head_has_a_largest_size() -> None:
    with pytest.raises(ProtocolError):
        response_head(bytearray(b"HTTP/1.1 200 OK\r\nX: " + b"y" * MAX_HEAD))

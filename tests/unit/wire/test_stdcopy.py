"""Docker's multiplexed stream."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.wire import stdcopy


def test_a_frame_byte_by_byte() -> None:
    assert stdcopy.frame(stdcopy.STDERR, b"hi\n") == b"\x02\0\0\0\0\0\0\x03hi\n"
    assert stdcopy.header(stdcopy.STDOUT, 258) == b"\x01\0\0\0\0\0\x01\x02"


@given(
    frames=st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=50)), max_size=8),
    cut=st.integers(1, 30),
)
def test_frames_come_back_however_the_stream_is_cut(frames: list[tuple[int, bytes]], cut: int) -> None:
    wire = b"".join(stdcopy.frame(stream, payload) for stream, payload in frames)
    found: list[tuple[int, bytes]] = []
    rest = b""
    for start in range(0, len(wire), cut):
        more, rest = stdcopy.split(rest + wire[start : start + cut])
        found += more
    assert found == frames
    assert rest == b""


@pytest.mark.parametrize(
    "wire", [b"\x04\0\0\0\0\0\0\0", b"\x01\0\x01\0\0\0\0\0", b"\x01\0\0\0\xff\0\0\0", b"text on a tty"]
)
def test_what_is_no_frame_is_refused(wire: bytes) -> None:
    with pytest.raises(stdcopy.MalformedFrame):
        stdcopy.split(wire)


def test_a_header_by_itself() -> None:
    assert stdcopy.parse_header(stdcopy.header(2, 70000)) == (2, 70000)
    with pytest.raises(stdcopy.MalformedFrame):
        stdcopy.parse_header(b"HTTP/1.1")

"""Frames of a build's session."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.wire import sessions
from sampan.wire.sessions import ASK, DATA, END, HELLO, NOTE, MalformedFrame, Splitter, frame

FRAMES = [
    (HELLO, 0, b"{}"),
    (ASK, 1, b'{"service":"list"}'),
    (DATA, 1, b"abc" * 100),
    (DATA, 2, b""),
    (END, 1, b""),
    (NOTE, 0, b"x" * 5000),
]


def joined(found: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    """Pieces of data put together again."""
    whole: list[tuple[int, int, bytes]] = []
    for kind, channel, payload in found:
        if kind == DATA and whole and whole[-1][:2] == (DATA, channel):
            payload = whole.pop()[2] + payload
        whole.append((kind, channel, payload))
    return whole


@given(st.lists(st.integers(min_value=1, max_value=200)))
def test_frames_are_the_same_however_they_are_received(sizes: list[int]) -> None:
    stream = b"".join(frame(*one) for one in FRAMES)
    splitter = Splitter()
    found: list[tuple[int, int, bytes]] = []
    at = 0
    for size in [*sizes, len(stream)]:
        found += splitter.feed(stream[at : at + size])
        at += size
    assert joined(found) == [one for one in FRAMES if one[2] or one[0] != DATA]


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request",
        sessions.HEAD.pack(0, 0, 0),
        sessions.HEAD.pack(DATA, 1, sessions.MAX_DATA + 1),
        sessions.HEAD.pack(HELLO, 0, sessions.MAX_MESSAGE + 1),
        sessions.HEAD.pack(7, 1, 1),
    ],
)
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedFrame):
        Splitter().feed(data)


def test_a_long_message_is_taken_when_it_is_complete() -> None:
    splitter = Splitter()
    data = frame(HELLO, 0, bytes(100_000))
    for at in range(0, len(data) - 1, 1000):
        assert splitter.feed(data[at : min(at + 1000, len(data) - 1)]) == []
    assert splitter.feed(data[-1:]) == [(HELLO, 0, bytes(100_000))]

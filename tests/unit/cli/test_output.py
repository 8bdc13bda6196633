"""Frames on their way to stdout and stderr, however they were cut on the way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.cli.session import Output
from sampan.wire import stdcopy


@given(
    frames=st.lists(st.tuples(st.sampled_from((1, 2)), st.binary(max_size=40))),
    cut=st.integers(1, 60),
)
def test_frames_reach_their_streams(frames: list[tuple[int, bytes]], cut: int) -> None:
    said = {1: b"", 2: b""}

    class Collected(Output):
        def _flush(self, pieces: list[memoryview]) -> None:
            said[self._stream] += b"".join(pieces)
            pieces.clear()

    wire = b"".join(stdcopy.frame(stream, data) for stream, data in frames)
    output = Collected(multiplexed=True)
    for start in range(0, len(wire), cut):
        output.feed(wire[start : start + cut])
    for stream in (1, 2):
        assert said[stream] == b"".join(data for number, data in frames if number == stream)


def test_many_pieces_are_written(capfd: pytest.CaptureFixture[str]) -> None:
    wire = b"".join(stdcopy.frame(1 + number % 7 // 6, b"%d\n" % number) for number in range(3000))
    Output(multiplexed=True).feed(wire)
    out, err = capfd.readouterr()
    assert out.split() == [str(number) for number in range(3000) if number % 7 != 6]
    assert err.split() == [str(number) for number in range(3000) if number % 7 == 6]


def test_what_is_not_wanted_is_passed_over(capfd: pytest.CaptureFixture[str]) -> None:
    Output(multiplexed=True, stderr=False).feed(stdcopy.frame(2, b"no") + stdcopy.frame(1, b"yes"))
    assert capfd.readouterr() == ("yes", "")

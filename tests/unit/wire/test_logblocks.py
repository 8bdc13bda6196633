"""Reading blocks of records at once gives what reading them one by one gives."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.wire import jsonlog, logblocks, logrecords

TIMES = tuple(f"2026-11-24T05:58:5{n}.12345678{n}Z" for n in range(3))
ODD_TIMES = ("2026-11-24T05:58:53.5Z", "2026-11-24T05:58:53Z", "2026-11-24T05:58:53.1+02:00")
TEXTS = st.text(st.sampled_from('ab\\"\nn\0\u20ac\x1b<'), max_size=8)
ENDS = st.sampled_from(("\n", "", "\\", "n", '"', "\\\n"))
ATTRIBUTES = st.sampled_from(("", '{"tag":"x"}', '{"a":"}\\",\\"time\\":\\"","b":"c"}'))
GARBAGE = st.sampled_from(
    (b"\n", b"\0\0\n", b"{}\n", b'{"log":"torn\n', b'{"log":"a","stream":"odd","time":"b"}\n')
)


@st.composite
def ours(draw: st.DrawFn) -> bytes:
    text = (draw(TEXTS).replace("\n", "") + draw(ENDS)).encode()
    time = draw(st.sampled_from(TIMES) | st.sampled_from(ODD_TIMES))
    return logrecords.record(draw(st.sampled_from((1, 2))), time, text, draw(ATTRIBUTES))


@st.composite
def dockers(draw: st.DrawFn) -> bytes:
    """As another program writes it: other escapes, other order."""
    document = {"log": draw(TEXTS), "stream": "stdout", "time": TIMES[0]}
    if draw(st.booleans()):
        document = dict(reversed(document.items()))
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def one_by_one(block: bytes) -> list[tuple[int, int, bytes]]:
    parsed = (jsonlog.parse(line.decode()) for line in block.split(b"\n") if line)
    return [entry for entry in parsed if entry]


@given(st.lists(ours() | dockers() | GARBAGE, max_size=30))
def test_blocks_say_what_their_records_say(lines: list[bytes]) -> None:
    block = b"".join(lines)
    expected = one_by_one(block)
    found = logblocks.entries(block)
    assert [(stream, jsonlog.parse_time(time.decode()), data) for stream, time, data in found] == expected
    texts = logblocks.texts(block)
    for stream in (1, 2):
        said = b"".join(data for number, data in texts if number == stream)
        assert said == b"".join(data for number, _, data in expected if number == stream)
    # The order of the streams is kept: neighbours are all that was put together.
    order = [number for number, data in texts if data]
    wanted = [number for number, _, data in expected if data]
    assert [n for i, n in enumerate(order) if i == 0 or order[i - 1] != n] == [
        n for i, n in enumerate(wanted) if i == 0 or wanted[i - 1] != n
    ]


def test_a_block_of_one_stream_is_one_text() -> None:
    block = logrecords.lines(b"one\ntwo\n" * 100, logrecords.tail(2, TIMES[0]))
    assert logblocks.texts(block) == [(2, b"one\ntwo\n" * 100)]


@pytest.mark.parametrize("moment", [0, 1_795_499_933_123_456_789, 1_700_000_000_000_000_000])
def test_times_sort_as_text(moment: int) -> None:
    assert jsonlog.parse_time(logblocks.stamp(moment).decode()) == moment
    assert len(logblocks.stamp(moment)) == logblocks.STAMP

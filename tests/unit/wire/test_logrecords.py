"""Writing json-file records: whatever the shape of the output, a JSON parser gives it back."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from sampan.wire import jsonlog, logrecords

TIME = "2026-11-24T05:58:53.123456789Z"

LINES = st.lists(st.text(st.characters(exclude_characters="\n"))).map(lambda found: [*found, "end"])
DENSE = st.text(st.sampled_from('\0\1\x1b\t"\\\u20ac'), max_size=50)


@given(LINES | st.lists(DENSE, min_size=1))
def test_each_line_is_a_record(lines: list[str]) -> None:
    data = "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")
    written = logrecords.lines(data, logrecords.tail(1, TIME))
    found = [jsonlog.parse(line) for line in written.decode().split("\n") if line]
    assert written.count(b"\n") == data.count(b"\n")
    assert b"".join(entry[2] for entry in found if entry) == data


@given(st.binary())
def test_bytes_that_are_no_text_are_replaced(data: bytes) -> None:
    document = json.loads(logrecords.record(2, TIME, data))
    assert document == {"log": data.decode("utf-8", "replace"), "stream": "stderr", "time": TIME}


def test_attributes_stand_before_the_time() -> None:
    line = logrecords.record(1, TIME, b"x\n", '{"tag":"a"}')
    assert line == b'{"log":"x\\n","stream":"stdout","attrs":{"tag":"a"},"time":"' + TIME.encode() + b'"}\n'
    assert jsonlog.parse(line.decode()) == (1, jsonlog.parse_time(TIME), b"x\n")

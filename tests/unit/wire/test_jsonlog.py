"""The json-file log format."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.wire import jsonlog, logrecords

TIME = "2026-11-24T05:58:53.123456789Z"
TIME_NS = 1795499933123456789


@given(stream=st.sampled_from((1, 2)), text=st.text())
def test_what_is_written_is_read_back(stream: int, text: str) -> None:
    data = text.encode("utf-8", "replace")
    line = logrecords.record(stream, TIME, data)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert jsonlog.parse(line.decode()) == (stream, TIME_NS, data)


@given(stream=st.sampled_from((1, 2)), text=st.text(alphabet=st.characters(codec="utf-8")))
def test_it_agrees_with_a_json_parser(stream: int, text: str) -> None:
    line = logrecords.record(stream, TIME, text.encode()).decode()
    assert json.loads(line) == {"log": text, "stream": {1: "stdout", 2: "stderr"}[stream], "time": TIME}


@pytest.mark.parametrize(
    "line",
    [
        '{"log":"a\\n","stream":"stderr","attrs":{"x":"y"},"time":"2026-11-24T05:58:53.123456789Z"}',
        '{"time":"2026-11-24T05:58:53.123456789Z","log":"a\\n","stream":"stderr"}',
        '{"log": "a\\n", "stream": "stderr", "time": "2026-11-24T05:58:53.123456789Z"}',
        '{"log":"a\\n","stream":"stderr","time":"2026-11-24T07:58:53.123456789+02:00"}',
    ],
)
def test_other_forms_of_the_same_record(line: str) -> None:
    assert jsonlog.parse(line) == (2, TIME_NS, b"a\n")


@pytest.mark.parametrize(
    "line",
    [
        "",
        "x",
        "{}",
        "null",
        '{"log":"a',
        '{"log":"a\\n","stream":"stdout","time":"20',
        '{"log":"a\\n","stream":"stdout","time":"today"}',
        '{"log":1,"stream":"stdout","time":"2026-11-24T05:58:53.1Z"}',
        '{"log":"a","stream":"odd","time":"2026-11-24T05:58:53.1Z"}',
        "\0\0\0\0",
    ],
)
def test_what_is_no_record_is_none(line: str) -> None:
    assert jsonlog.parse(line) is None


@given(
    moment=st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(2200, 1, 1)),
    digits=st.integers(0, 6),
    minutes=st.integers(-720, 720),
)
def test_times_with_any_precision_and_zone(moment: datetime, digits: int, minutes: int) -> None:
    zone = timezone(timedelta(minutes=minutes))
    text = moment.strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
    fraction = f"{moment.microsecond:06d}"[:digits]
    sign = "-" if minutes < 0 else "+"
    suffix = f"{sign}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
    exact = int(fraction.ljust(9, "0") or 0)
    whole = int(moment.replace(microsecond=0, tzinfo=zone).timestamp())
    assert jsonlog.parse_time(text + (f".{fraction}" if fraction else "") + suffix) == whole * 10**9 + exact


@pytest.mark.parametrize(
    "text",
    [
        *("", "2026", "2026-13-01T00:00:00Z", "2026-01-01T25:00:00Z", "x" * 30),
        *("20210-1-1T00:00:00.000000000Z", "00000-1-1T00:00:00.000000000Z"),
    ],
)
def test_what_is_no_time_is_none(text: str) -> None:
    assert jsonlog.parse_time(text) is None

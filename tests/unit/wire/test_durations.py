"""Go's durations, read and shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.wire.durations import parse, shown


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1_500, "1.5µs"),
        (700_000_000, "700ms"),
        (1_500_000_000, "1.5s"),
        (90_000_000_000, "1m30s"),
        (3_600_000_000_000, "1h0m0s"),
        (-5_000_000, "-5ms"),
    ],
)
def test_as_go_shows_them(value: int, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize(("text", "value"), [("1.5h", 5_400_000_000_000), ("+1m", 60_000_000_000), ("0", 0)])
def test_as_go_reads_them(text: str, value: int) -> None:
    assert parse(text) == value


@pytest.mark.parametrize("text", ["", "-", "1", "s", ".s", "1..2s", "1x", "9999999h"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"^time: "):
        parse(text)


@given(st.integers(0, 1 << 50))
def test_what_is_shown_is_read_again(value: int) -> None:
    assert abs(parse(shown(value)) - value) <= 1  # fractions are read as Go reads them, in floating point

"""Sizes, spans and dates as Docker prints them."""

from __future__ import annotations

import pytest

from sampan.cli.human import binary_size, epoch, size, span
from sampan.cli.moments import timestamp
from sampan.cli.portlist import ports_text
from sampan.cli.table import columns
from sampan.cli.values import duration
from sampan.cli.values import size as parse_size

MINUTE, HOUR, DAY = 60, 3600, 86400


@pytest.mark.parametrize(
    ("number", "digits", "text"),
    [
        (0, 4, "0B"),
        (999, 4, "999B"),
        (1984172, 3, "1.98MB"),
        (1984172, 4, "1.984MB"),
        (199_000_000, 3, "199MB"),
        (399_800_000, 4, "399.8MB"),
        (1000, 4, "1kB"),
    ],
)
def test_size(number: int, digits: int, text: str) -> None:
    assert size(number, digits) == text


def test_binary_size() -> None:
    assert binary_size(25276227584) == "23.54GiB"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (59 * MINUTE, "59 minutes"),
        (HOUR, "About an hour"),
        (89 * MINUTE, "About an hour"),
        (90 * MINUTE, "2 hours"),
        (47 * HOUR, "47 hours"),
        (48 * HOUR, "2 days"),
        (13 * DAY, "13 days"),
        (14 * DAY, "2 weeks"),
        (59 * DAY, "8 weeks"),
        (60 * DAY, "2 months"),
        (729 * DAY, "24 months"),
        (730 * DAY, "2 years"),
    ],
)
def test_span(seconds: float, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2024-02-29T12:00:00Z", 1709208000),
        ("2024-02-29T13:00:00+01:00", 1709208000),
    ],
)
def test_epoch(text: str, seconds: float) -> None:
    assert epoch(text) == seconds


@pytest.mark.parametrize(
    ("text", "stamp"),
    [
        ("1709208000", "1709208000"),
        ("1709208000.5", "1709208000.5"),
        ("2024-02-29T12:00:00Z", "1709208000.000000000"),
        ("2024-02-29T12:00:00.25Z", "1709208000.250000000"),
    ],
)
def test_timestamp(text: str, stamp: str) -> None:
    assert timestamp(text, "since") == stamp


def test_a_time_that_is_none() -> None:
    with pytest.raises(ValueError, match='failed to parse value as time or duration: "foo"'):
        timestamp("foo", "since")


@pytest.mark.parametrize(("text", "number"), [("512m", 1 << 29), ("1.5g", 3 << 29), ("1KiB", 1024), ("7", 7)])
def test_parsed_size(text: str, number: int) -> None:
    assert parse_size(text) == number


@pytest.mark.parametrize(
    ("text", "number"), [("1m30s", 90 * 10**9), ("-1.5h", -5400 * 10**9), ("10ms", 10**7)]
)
def test_duration(text: str, number: int) -> None:
    assert duration(text) == number


def test_ports_that_are_neighbours_become_a_range() -> None:
    ports = [
        {"PrivatePort": 80, "Type": "tcp"},
        {"PrivatePort": 81, "Type": "tcp"},
        {"PrivatePort": 90, "Type": "tcp"},
        {"PrivatePort": 5, "PublicPort": 6, "IP": "::", "Type": "udp"},
        {"PrivatePort": 7, "PublicPort": 7, "IP": "0.0.0.0", "Type": "udp"},
    ]
    assert ports_text(ports) == "80-81/tcp, 0.0.0.0:7->7/udp, 90/tcp, [::]:6->5/udp"


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    rows = [["A", "B", "C"], ["long enough to push", "x", "y"], ["a", "", "z"]]
    assert columns(rows) == [
        "A                     B         C",
        "long enough to push   x         y",
        "a                               z",
    ]

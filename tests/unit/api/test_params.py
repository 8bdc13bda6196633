"""Query parameters by Docker's rules."""

from __future__ import annotations

import pytest

from sampan.api.params import Query, timestamp, unquote
from sampan.engine.model import Filters
from sampan.errors import InvalidArgument


@pytest.mark.parametrize("value", ["", "0", "no", "false", "none", "False", "NONE", "%20no%20"])
def test_false(value: str) -> None:
    assert not Query(f"x={value}").flag("x", default=True)


@pytest.mark.parametrize("value", ["1", "true", "True", "yes", "2", "anything"])
def test_true(value: str) -> None:
    assert Query(f"x={value}").flag("x")


def test_absent_parameters_have_their_default() -> None:
    query = Query("")
    assert query.flag("x", default=True)
    assert query.integer("x", 7) == 7
    assert query.text("x", "d") == "d"
    assert not query.filters()
    assert "x" not in query


def test_of_repeated_parameters_the_first_counts() -> None:
    query = Query("a=1&b=2&a=3&&c")
    assert query.text("a") == "1"
    assert query.texts("a") == ["1", "3"]
    assert query.text("c", "d") == ""
    assert "c" in query


def test_decoding() -> None:
    assert Query("n%C3%A9=a+b%2Bc%26").text("né") == "a b+c&"
    assert unquote("100%") == "100%"
    assert unquote("%zz%4") == "%zz%4"
    assert unquote("%ff") == "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("z", 'strconv.Atoi: parsing "z": invalid syntax'),
        ("1_0", 'strconv.Atoi: parsing "1_0": invalid syntax'),
        ("%2B-1", 'strconv.Atoi: parsing "+-1": invalid syntax'),
        ("9223372036854775808", 'strconv.Atoi: parsing "9223372036854775808": value out of range'),
        ("9" * 400, f'strconv.Atoi: parsing "{"9" * 400}": value out of range'),
        ("%D9%A3", 'strconv.Atoi: parsing "٣": invalid syntax'),
    ],
)
def test_numbers_are_refused_in_gos_words(value: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        Query(f"t={value}").integer("t")
    assert str(refused.value) == message


def test_numbers() -> None:
    assert Query("t=-1").integer("t") == -1
    assert Query("t=%2B5").integer("t") == 5
    assert Query("t=").integer("t") is None
    assert Query("h=12").required_integer("h") == 12
    with pytest.raises(InvalidArgument, match=r'strconv.Atoi: parsing "": invalid syntax'):
        Query("").required_integer("h")


def test_filters_in_both_forms() -> None:
    assert Query('filters={"label":["a","b"]}').filters() == Filters({"label": ("a", "b")})
    assert Query('filters={"label":{"a":true,"b":false}}').filters() == Filters({"label": ("a",)})
    for bad in ("x", "[]", '{"a":1}', '{"a":[1]}', '{"a":{"b":"c"}}'):
        with pytest.raises(InvalidArgument, match="invalid filter"):
            Query(f"filters={bad}").filters()


def test_timestamps_are_seconds_with_a_fraction() -> None:
    assert timestamp("") == 0
    assert timestamp("12") == 12_000_000_000
    assert timestamp("12.5") == 12_500_000_000
    assert timestamp("12.000000001") == 12_000_000_001
    assert timestamp("12.0000000019") == 12_000_000_001
    for bad in ("z", "1.x", "2024-01-01"):
        with pytest.raises(InvalidArgument, match=r"strconv.ParseInt"):
            timestamp(bad)

"""JSON of others: one failure, and texts that can be written again."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.spec import foreign

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(_JSON)
def test_what_can_be_written_is_read_as_it_is(value: object) -> None:
    assert foreign.decode(json.dumps(value)) == value
    assert foreign.decode(json.dumps(value, ensure_ascii=False).encode()) == value


@given(st.text(st.characters()), st.sampled_from(["\\ud800", "\\uDFFF", "\\ud800\\ud800"]))
def test_half_a_surrogate_is_the_replacement_character(text: str, half: str) -> None:
    raw = json.dumps({text: text})[:-2] + half + '"}'
    (value,) = foreign.decode(raw).values()
    value.encode()
    assert value.endswith("\ufffd")


def test_pairs_stay() -> None:
    assert foreign.decode(rb'"\ud83d\ude00 \\ud800"') == "\U0001f600 \\ud800"


@pytest.mark.parametrize("raw", [b"[" * 100_000, b'{"a":' * 100_000, b"", b"\xff", b"{", "nul"])
def test_what_is_none_is_a_value_error(raw: bytes | str) -> None:
    with pytest.raises(ValueError):
        foreign.decode(raw)

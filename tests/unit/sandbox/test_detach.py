from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.errors import InvalidArgument
from sampan.sandbox.detach import DEFAULT, DetachKeys, parse


def test_parse() -> None:
    assert parse(DEFAULT) == b"\x10\x11"
    assert parse("ctrl-x,x") == b"\x18x"
    assert parse("ctrl-[,a") == b"\x1ba"
    with pytest.raises(InvalidArgument, match="invalid detach keys"):
        parse("ctrl-p,nonsense")


def test_the_sequence_is_found_across_reads_and_what_follows_is_dropped() -> None:
    keys = DetachKeys(b"\x10\x11")
    assert keys.feed(b"ab\x10") == (b"ab", False)
    assert keys.feed(b"\x11cd") == (b"", True)


def test_a_started_sequence_that_does_not_go_on_is_input() -> None:
    keys = DetachKeys(b"\x10\x11")
    assert keys.feed(b"\x10") == (b"", False)
    assert keys.feed(b"x") == (b"\x10x", False)
    assert keys.feed(b"\x10\x10") == (b"\x10", False)
    assert keys.feed(b"\x11") == (b"", True)


@given(st.lists(st.binary(max_size=20), max_size=10))
def test_input_without_the_first_key_passes_unchanged(chunks: list[bytes]) -> None:
    keys = DetachKeys(b"\xff\xfe")
    chunks = [chunk.replace(b"\xff", b"") for chunk in chunks]
    assert b"".join(keys.feed(chunk)[0] for chunk in chunks) == b"".join(chunks)

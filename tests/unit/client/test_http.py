"""HTTP and JSON as the client reads them, in pieces cut anywhere."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.client.http import CHUNKED, LENGTH, UNTIL_CLOSE, Body, Head, ProtocolError, chunk, request, target
from sampan.wire import document

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(JSON)
def test_json_goes_round(value: Any) -> None:
    assert document.decode(document.encode(value)) == value
    assert json.loads(document.encode(value)) == value


@pytest.mark.parametrize("text", ["", "{", "[1,]", "nul", "1 2"])
def test_what_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        document.decode(text)


@given(st.lists(JSON, max_size=5), st.integers(1, 7))
def test_values_come_out_of_a_stream_however_it_is_cut(values: list[Any], step: int) -> None:
    data = b"".join(document.encode(value).encode("utf-8", "surrogatepass") + b"\n" for value in values)
    stream = document.Stream()
    found = [value for at in range(0, len(data), step) for value in stream.feed(data[at : at + step])]
    assert found + stream.close() == values


@given(st.lists(st.binary(min_size=1, max_size=50)), st.integers(1, 9))
def test_chunked_body_however_it_is_cut(parts: list[bytes], step: int) -> None:
    data = b"".join(chunk(part) for part in parts) + chunk(b"")
    body = Body(CHUNKED, 0)
    out = b"".join(body.feed(data[at : at + step]) for at in range(0, len(data), step))
    assert out == b"".join(parts)
    assert body.done


def test_a_body_that_ends_early_is_an_error() -> None:
    body = Body(LENGTH, 5)
    assert body.feed(b"abc") == b"abc"
    with pytest.raises(ProtocolError):
        body.feed(b"")


@pytest.mark.parametrize(
    ("head", "framing"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5", (LENGTH, 5)),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", (CHUNKED, 0)),
        (b"HTTP/1.1 200 OK", (UNTIL_CLOSE, 0)),
    ],
)
def test_framing(head: bytes, framing: tuple[int, int]) -> None:
    assert Head(head).framing("GET") == framing


def test_request_and_target() -> None:
    where = target("/v1.50/x", {"b": "1/2", "a": "ä b"})
    assert where == "/v1.50/x?a=%C3%A4%20b&b=1%2F2"
    data = request("POST", where, {"Content-Type": "application/json"}, body=b"{}")
    assert data.startswith(b"POST /v1.50/x?a=%C3%A4%20b&b=1%2F2 HTTP/1.1\r\nHost: localhost\r\n")
    assert data.endswith(b"Content-Length: 2\r\n\r\n{}")

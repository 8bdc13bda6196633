"""The opening handshake of a WebSocket."""

from __future__ import annotations

import pytest

from sampan.api.handshake import accept
from sampan.errors import InvalidArgument


def test_the_handshake_of_the_rfc() -> None:
    assert accept("WebSocket", "dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize(
    ("upgrade", "key"), [("", "dGhlIHNhbXBsZSBub25jZQ=="), ("tcp", ""), ("websocket", "")]
)
@pytest.mark.parametrize("more", ["", "x", "*"])
def test_what_is_no_handshake(upgrade: str, key: str, more: str) -> None:
    with pytest.raises(InvalidArgument):
        accept(upgrade, key + more if upgrade == "websocket" else key)

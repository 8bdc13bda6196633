"""The opening handshake of a WebSocket (RFC 6455, 4.2), as far as the answer depends on the request."""

from __future__ import annotations

import base64
import hashlib

from sampan.errors import InvalidArgument

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept(upgrade: str, key: str) -> str:
    """The answer to ``Upgrade`` and ``Sec-WebSocket-Key``; InvalidArgument in the words of Go's library."""
    if upgrade.lower() != "websocket":
        raise InvalidArgument("not websocket protocol")
    try:
        if len(base64.b64decode(key, validate=True)) != 16:
            raise ValueError(key)
    except ValueError:
        raise InvalidArgument("mismatch challenge/response") from None
    digest = hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()

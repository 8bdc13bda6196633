"""The engine as a whole."""

from __future__ import annotations

from sampan.api.request import Request
from sampan.api.responses import Answer, text
from sampan.api.routing import Route

_PING = (
    b"Builder-Version: 1\r\nCache-Control: no-cache, no-store, must-revalidate\r\n"
    b"Pragma: no-cache\r\nSwarm: inactive\r\n"
)


def ping(request: Request, _engine: object) -> Answer:
    """Is there a daemon, and what does it speak?"""
    return text(b"" if request.method == "HEAD" else b"OK", headers=_PING)


ROUTES = (
    Route("GET", "/_ping", ping),
    Route("HEAD", "/_ping", ping),
)

"""Which requests take room on the disk: refused, before anything is read or made, while there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from sampan.api.request import Request
from sampan.api.responses import Answer
from sampan.api.routing import Handler, Route

TAKE_ROOM = frozenset(
    (
        ("POST", "/containers/create"),
        ("POST", "/commit"),
        ("POST", "/images/create"),
        ("POST", "/images/load"),
        ("POST", "/build"),
        ("POST", "/build/session"),
        ("POST", "/build/cache/import"),
        ("POST", "/build/mounts/import"),
        ("POST", "/sampan-volumes/{name}/clone"),
        ("POST", "/sampan-volumes/{name}/snapshot"),
        ("POST", "/sampan-volumes/{name}/import"),
    )
)


def guarded(routes: Iterable[Route], need: Callable[[], None]) -> tuple[Route, ...]:
    """The routes, those that take room behind ``need``, which raises when there is none."""
    return tuple(
        replace(route, handler=_behind(need, route.handler))
        if (route.method, route.pattern) in TAKE_ROOM
        else route
        for route in routes
    )


def _behind(need: Callable[[], None], handler: Handler) -> Handler:
    def handle(request: Request, engine: Any) -> Answer | Any:
        need()
        return handler(request, engine)

    return handle

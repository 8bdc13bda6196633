"""The engine as a whole: is it there, what is it, what happens in it."""

from __future__ import annotations

import os
import time
from collections import Counter

from sampan.api.params import timestamp
from sampan.api.render import system as render
from sampan.api.render.events import event as render_event
from sampan.api.request import Request
from sampan.api.responses import JSON, Answer, Rendered, Stream, json_line, json_response, text
from sampan.api.routing import Route
from sampan.engine.facade import Engine
from sampan.engine.model import Event
from sampan.errors import InvalidArgument

_PING = (
    b"Builder-Version: 1\r\nCache-Control: no-cache, no-store, must-revalidate\r\n"
    b"Pragma: no-cache\r\nSwarm: inactive\r\n"
)


def ping(request: Request, _engine: Engine) -> Answer:
    """GET and HEAD /_ping: is there a daemon, and what does it speak?"""
    return text(b"" if request.method == "HEAD" else b"OK", headers=_PING)


def events(request: Request, engine: Engine) -> Answer:
    """GET /events?since=&until=&filters=: a JSON document per line, endless unless ``until`` is given."""
    query = request.query
    since, until = _moment(query.text("since")), _moment(query.text("until"))
    if since and until and until < since:
        raise InvalidArgument(
            f"`since` time ({query.text('since')}) cannot be after `until` time ({query.text('until')})"
        )
    subscription = engine.events.subscribe(since, until, query.filters())
    version = request.version

    def line(event: Event) -> bytes:
        return json_line(render_event(event, version))

    return Stream(Rendered(subscription, line), JSON)


def _moment(given: str) -> int:
    """Nanoseconds since the epoch, 0 when not given; the epoch itself is a moment like any other."""
    return timestamp(given) or int(given != "")


def version(_request: Request, engine: Engine) -> Answer:
    """GET /version"""
    return json_response(render.version(engine.system.version()))


def info(request: Request, engine: Engine) -> Answer:
    """GET /info"""
    descriptors = len(os.listdir("/proc/self/fd"))
    return json_response(render.info(engine.system.info(), request.version, descriptors=descriptors))


_KINDS = frozenset(("container", "image", "volume", "build-cache"))


async def disk_usage(request: Request, engine: Engine) -> Answer:
    """GET /system/df?type=&verbose=; ``type`` may be repeated, none means all."""
    query = request.query
    kinds = (frozenset(query.texts("type")) if request.version >= (1, 42) else frozenset()) or _KINDS
    for kind in kinds - _KINDS:
        raise InvalidArgument(f"unknown object type: {kind}")
    containers = await engine.system.container_usage() if "container" in kinds else ()
    uses = Counter(container.image_id for container in engine.system.containers())
    return json_response(
        render.disk_usage(
            images=await engine.images.usage(uses) if "image" in kinds else None,
            containers=containers if "container" in kinds else None,
            volumes=await engine.volumes.usage() if "volume" in kinds else None,
            build_cache=await engine.build_usage.records() if "build-cache" in kinds else None,
            now=time.time_ns(),
            version=request.version,
            verbose=query.flag("verbose"),
        )
    )


ROUTES = (
    Route("GET", "/version", version),
    Route("GET", "/info", info),
    Route("GET", "/system/df", disk_usage),
    Route("GET", "/_ping", ping),
    Route("HEAD", "/_ping", ping),
    Route("GET", "/events", events),
)

"""Volumes."""

from __future__ import annotations

from typing import Any

import msgspec

from sampan.api.render.times import SECOND, rfc3339
from sampan.api.request import Request
from sampan.api.responses import EMPTY, TAR, Answer, Stream, json_response
from sampan.api.routing import Route
from sampan.engine.facade import Engine
from sampan.engine.model.volumes import Volume
from sampan.engine.volumecopies import Manner
from sampan.errors import InvalidArgument

_LONGEST = 3600.0
"""Seconds that containers may be asked to stand still for."""

_ALL_UNUSED_BEFORE = (1, 42)
"""Clients of older versions mean all unused volumes when they prune."""


class CreateOptions(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """What a volume is created with; the name is Docker's, which messages tell."""

    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] | None = None
    labels: dict[str, str] | None = None


def render(volume: Volume) -> dict[str, Any]:
    shown = {
        # Docker's local driver tells whole seconds.
        "CreatedAt": rfc3339(volume.created_ns // SECOND * SECOND) if volume.created_ns else "",
        "Driver": volume.driver,
        "Labels": volume.labels,
        "Mountpoint": volume.mountpoint,
        "Name": volume.name,
        "Options": volume.options,
        "Scope": volume.scope,
    }
    return shown if volume.status is None else {**shown, "Status": volume.status}


async def list_volumes(request: Request, engine: Engine) -> Answer:
    """GET /volumes"""
    found, warnings = await engine.volumes.survey(request.query.filters())
    return json_response({"Volumes": [render(volume) for volume in found], "Warnings": warnings or None})


async def create(request: Request, engine: Engine) -> Answer:
    """POST /volumes/create"""
    asked = await request.json(CreateOptions)
    volume = await engine.volumes.create(
        asked.name, driver=asked.driver, options=asked.driver_opts, labels=asked.labels
    )
    return json_response(render(volume), status=201)


async def inspect(request: Request, engine: Engine) -> Answer:
    """GET /volumes/{name}"""
    return json_response(render(await engine.volumes.inspect(request.name)))


async def remove(request: Request, engine: Engine) -> Answer:
    """DELETE /volumes/{name}?force="""
    await engine.volumes.remove(request.name, force=request.query.flag("force"))
    return EMPTY


async def prune(request: Request, engine: Engine) -> Answer:
    """POST /volumes/prune"""
    pruned = await engine.volumes.prune(
        request.query.filters(), all_unused=request.version < _ALL_UNUSED_BEFORE
    )
    return json_response({"VolumesDeleted": pruned.ids or None, "SpaceReclaimed": pruned.space_reclaimed})


# ------------------------------------------------------------------ this engine's own


async def clone(request: Request, engine: Engine) -> Answer:
    """POST /sampan-volumes/{name}/clone?name=&pause=&limit="""
    made = await engine.volume_copies.clone(request.name, request.query.text("name"), _manner(request))
    return json_response(render(made), status=201)


async def snapshot(request: Request, engine: Engine) -> Answer:
    """POST /sampan-volumes/{name}/snapshot?name=&pause=&limit="""
    made = await engine.volume_copies.snapshot(request.name, request.query.text("name"), _manner(request))
    return json_response(render(made), status=201)


async def rename(request: Request, engine: Engine) -> Answer:
    """POST /sampan-volumes/{name}/rename?name="""
    await engine.volumes.rename(request.name, request.query.text("name"))
    return EMPTY


async def export(request: Request, engine: Engine) -> Answer:
    """GET /sampan-volumes/{name}/export?pause=&limit="""
    return Stream(await engine.volume_copies.export(request.name, _manner(request)), TAR)


async def load(request: Request, engine: Engine) -> Answer:
    """POST /sampan-volumes/{name}/import?label="""
    pairs = (label.partition("=") for label in request.query.texts("label"))
    labels = {key: value for key, _, value in pairs}
    made = await engine.volume_copies.load(request.name, request.body(), labels or None)
    return json_response(render(made), status=201)


def _manner(request: Request) -> Manner:
    """``limit`` is in seconds."""
    pause = request.query.flag("pause", default=True)
    given = request.query.text("limit")
    if not given:
        return Manner(pause=pause)
    try:
        limit = float(given)
    except ValueError:
        limit = -1.0
    if not 0 <= limit <= _LONGEST:
        raise InvalidArgument(f"invalid limit {given!r}: a number of seconds, at most {_LONGEST:g}")
    return Manner(pause=pause, limit=limit)


ROUTES = (
    Route("GET", "/volumes", list_volumes),
    Route("POST", "/volumes/create", create),
    Route("POST", "/volumes/prune", prune),
    Route("GET", "/volumes/{name}", inspect),
    Route("DELETE", "/volumes/{name}", remove),
    Route("POST", "/sampan-volumes/{name}/clone", clone),
    Route("POST", "/sampan-volumes/{name}/snapshot", snapshot),
    Route("POST", "/sampan-volumes/{name}/rename", rename),
    Route("GET", "/sampan-volumes/{name}/export", export),
    Route("POST", "/sampan-volumes/{name}/import", load),
)

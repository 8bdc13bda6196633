"""A container's files: copied in and out, exported, and compared with its image."""

from __future__ import annotations

import base64

import msgspec

from sampan.api.request import Request
from sampan.api.responses import TAR, Answer, Response, Stream, json_response
from sampan.api.routing import Route
from sampan.engine.archives import PathStat
from sampan.engine.facade import Engine
from sampan.images.model import format_time

_OCTETS = "application/octet-stream"


async def stat(request: Request, engine: Engine) -> Answer:
    """HEAD /containers/{id}/archive?path="""
    found = await engine.archives.stat(request.name, request.query.text("path"))
    return Response(200, headers=stat_header(found))


async def read(request: Request, engine: Engine) -> Answer:
    """GET /containers/{id}/archive?path="""
    found, archive = await engine.archives.read(request.name, request.query.text("path"))
    return Stream(archive, TAR, headers=stat_header(found))


async def write(request: Request, engine: Engine) -> Answer:
    """PUT /containers/{id}/archive?path=&noOverwriteDirNonDir=&copyUIDGID="""
    query = request.query
    await engine.archives.write(
        request.name,
        query.text("path"),
        request.body(),
        own_ids=query.flag("copyUIDGID"),
        keep_kinds=query.flag("noOverwriteDirNonDir"),
    )
    return Response(200)


async def export(request: Request, engine: Engine) -> Answer:
    """GET /containers/{id}/export"""
    return Stream(await engine.archives.export(request.name), _OCTETS)


async def changes(request: Request, engine: Engine) -> Answer:
    """GET /containers/{id}/changes"""
    return json_response(await engine.archives.changes(request.name) or None)


def stat_header(found: PathStat) -> bytes:
    """The header that tells what lies at the path: JSON in base64."""
    document = {
        "name": found.name,
        "size": found.size,
        "mode": found.mode,
        "mtime": format_time(found.mtime),
        "linkTarget": found.target,
    }
    encoded = base64.b64encode(msgspec.json.encode(document))
    return b"X-Docker-Container-Path-Stat: " + encoded + b"\r\n"


ROUTES = (
    Route("HEAD", "/containers/{id}/archive", stat),
    Route("GET", "/containers/{id}/archive", read),
    Route("PUT", "/containers/{id}/archive", write),
    Route("GET", "/containers/{id}/export", export),
    Route("GET", "/containers/{id}/changes", changes),
)

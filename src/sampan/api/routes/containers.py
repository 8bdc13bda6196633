"""Containers: listing, inspecting and moving them through their lives."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Sequence

from sampan import errors
from sampan.api.errors import with_prefix
from sampan.api.render import container as render
from sampan.api.request import Request
from sampan.api.responses import (
    EMPTY,
    NOT_MODIFIED,
    Answer,
    Response,
    document_response,
    joined,
    json_response,
)
from sampan.api.routing import Route
from sampan.engine import isolation
from sampan.engine.facade import Engine
from sampan.engine.model import Container, ListQuery
from sampan.errors import Failure, InvalidArgument, NotFound


async def list_containers(request: Request, engine: Engine) -> Answer:
    """GET /containers/json"""
    query = request.query
    wanted = ListQuery(
        all=query.flag("all"), limit=query.integer("limit") or 0, filters=query.filters("filters")
    )
    now = time.time_ns()
    containers = await engine.containers.list(wanted)
    shown = render.summaries(containers, now, request.version)
    more = engine.containers.link_names()
    if more:
        for document in shown:
            document["Names"] = (*document["Names"], *more.get(document["Id"], ()))
    if query.flag("size"):
        for document, sizes in zip(shown, await _sizes(engine, containers), strict=True):
            document.update(sizes)
    return json_response(shown)


def inspect(request: Request, engine: Engine) -> Answer | Awaitable[Answer]:
    """GET /containers/{id}/json?size="""
    container = engine.containers.get(request.name)
    document = render.inspected(container, request.version)
    if (found := isolation.observed(container)) is not None:
        document = joined(document, {"Isolation": found})  # our own, beside UserNamespace
    if request.query.flag("size"):
        return _with_sizes(engine, container, document)
    return document_response(document)


async def _with_sizes(engine: Engine, container: Container, document: bytes) -> Answer:
    (sizes,) = await _sizes(engine, (container,))
    return document_response(joined(document, sizes))


async def _sizes(engine: Engine, containers: Sequence[Container]) -> list[dict[str, int]]:
    """Bytes of each container's own layer, and of all its files."""
    layers = {one.container.id: one.space.apparent for one in await engine.system.container_usage(containers)}
    images: dict[str, int] = {}
    found = []
    for container in containers:
        own = layers.get(container.id, 0)
        if container.image_id not in images:
            try:
                images[container.image_id] = (await engine.images.inspect(container.image_id)).image.size
            except NotFound:
                images[container.image_id] = 0
        found.append({"SizeRw": own, "SizeRootFs": own + images[container.image_id]})
    return found


async def start(request: Request, engine: Engine) -> Answer:
    """POST /containers/{id}/start"""
    if request.body_length > 7 or request.body_length < 0:
        raise InvalidArgument(
            "starting container with non-empty request body was deprecated since API v1.22 "
            "and removed in v1.24"
        )
    if request.query.text("checkpoint"):
        raise errors.NotImplemented("starting from a checkpoint is not offered")
    return EMPTY if await engine.containers.start(request.name) else NOT_MODIFIED


async def stop(request: Request, engine: Engine) -> Answer:
    """POST /containers/{id}/stop?t=&signal="""
    stopped = await engine.containers.stop(
        request.name, signal=_stop_signal(request), timeout=request.query.integer("t")
    )
    return EMPTY if stopped else NOT_MODIFIED


async def restart(request: Request, engine: Engine) -> Answer:
    """POST /containers/{id}/restart?t=&signal="""
    await engine.containers.restart(
        request.name, signal=_stop_signal(request), timeout=request.query.integer("t")
    )
    return EMPTY


def _stop_signal(request: Request) -> str | None:
    """Chosen by the caller since 1.42; ignored before."""
    return (request.query.text("signal") or None) if request.version >= (1, 42) else None


async def kill(request: Request, engine: Engine) -> Answer:
    """POST /containers/{id}/kill?signal="""
    try:
        await engine.containers.kill(request.name, request.query.text("signal") or None)
    except Failure as failure:
        raise with_prefix(f"cannot kill container: {request.name}: ", failure) from failure
    return EMPTY


async def pause(request: Request, engine: Engine) -> Answer:
    """POST /containers/{id}/pause"""
    await engine.containers.pause(request.name)
    return EMPTY


async def unpause(request: Request, engine: Engine) -> Answer:
    """POST /containers/{id}/unpause"""
    await engine.containers.unpause(request.name)
    return EMPTY


async def remove(request: Request, engine: Engine) -> Answer:
    """DELETE /containers/{id}?v=&force=&link="""
    query = request.query
    if query.flag("link"):
        engine.containers.remove_link(request.name)
        return EMPTY
    await engine.containers.remove(request.name, force=query.flag("force"), volumes=query.flag("v"))
    return EMPTY


async def rename(request: Request, engine: Engine) -> Answer:
    """POST /containers/{id}/rename?name="""
    name = request.query.text("name")
    if not name:
        raise InvalidArgument("Neither old nor new names may be empty")
    await engine.containers.rename(request.name, name)
    return EMPTY


async def resize(request: Request, engine: Engine) -> Answer:
    """POST /containers/{id}/resize?h=&w="""
    query = request.query
    await engine.containers.resize(request.name, query.required_integer("h"), query.required_integer("w"))
    return Response(200)


async def prune(request: Request, engine: Engine) -> Answer:
    """POST /containers/prune"""
    pruned = await engine.containers.prune(request.query.filters())
    return json_response({"ContainersDeleted": pruned.ids or None, "SpaceReclaimed": pruned.space_reclaimed})


ROUTES = (
    Route("GET", "/containers/json", list_containers),
    Route("POST", "/containers/prune", prune),
    Route("GET", "/containers/{id}/json", inspect),
    Route("POST", "/containers/{id}/start", start),
    Route("POST", "/containers/{id}/stop", stop),
    Route("POST", "/containers/{id}/restart", restart),
    Route("POST", "/containers/{id}/kill", kill),
    Route("POST", "/containers/{id}/pause", pause),
    Route("POST", "/containers/{id}/unpause", unpause),
    Route("POST", "/containers/{id}/rename", rename),
    Route("POST", "/containers/{id}/resize", resize),
    Route("DELETE", "/containers/{id}", remove),
)

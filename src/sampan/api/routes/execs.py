"""Commands run in living containers."""

from __future__ import annotations

import asyncio

import msgspec

from sampan.api.render import execs as render
from sampan.api.request import Request
from sampan.api.responses import HIJACKED, Answer, Response, json_response
from sampan.api.routing import Route
from sampan.engine.facade import Engine
from sampan.engine.model import ExecConfig
from sampan.errors import InvalidArgument

# From a readable socket over the future of the exit to the record of the exec.
_TURNS_TO_AN_EXIT = 4


class ExecStart(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """The body of POST /exec/{id}/start. ``console_size`` is (height, width) in characters."""

    detach: bool = False
    tty: bool = False
    console_size: tuple[int, int] | None = None


async def create(request: Request, engine: Engine) -> Answer:
    """POST /containers/{id}/exec"""
    config = await request.json(ExecConfig)
    if not config.cmd:
        raise InvalidArgument("No exec command specified")
    if request.version < (1, 42):
        config = msgspec.structs.replace(config, console_size=None)
    return json_response({"Id": await engine.execs.create(request.name, config)}, status=201)


async def start(request: Request, engine: Engine) -> Answer:
    """POST /exec/{id}/start: answered at once when detached, else the connection is the command's streams."""
    body = await request.json(ExecStart)
    size = body.console_size if body.tty and not body.detach and request.version >= (1, 42) else None
    take = None if body.detach else request.hijacker(multiplexed=not body.tty)
    await engine.execs.start(request.name, detach=body.detach, tty=body.tty, console_size=size, take=take)
    return Response(200) if body.detach else HIJACKED


async def resize(request: Request, engine: Engine) -> Answer:
    """POST /exec/{id}/resize?h=&w="""
    query = request.query
    await engine.execs.resize(request.name, query.required_integer("h"), query.required_integer("w"))
    return Response(200)


async def inspect(request: Request, engine: Engine) -> Answer:
    """GET /exec/{id}/json

    A client asks when it has seen the end of the output, which the keeper reported the exit before. The
    report may be received in the same round of the loop as the question: it is taken first.
    """
    for _ in range(_TURNS_TO_AN_EXIT):
        await asyncio.sleep(0)
    return json_response(render.inspect(engine.execs.inspect(request.name)))


ROUTES = (
    Route("POST", "/containers/{id}/exec", create),
    Route("POST", "/exec/{id}/start", start),
    Route("POST", "/exec/{id}/resize", resize),
    Route("GET", "/exec/{id}/json", inspect),
)

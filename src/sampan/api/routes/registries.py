"""Registries: logging in, and looking at what is there."""

from __future__ import annotations

from typing import Any

from sampan.api.request import Request
from sampan.api.responses import Answer, json_response
from sampan.api.routing import Route
from sampan.engine.facade import Engine
from sampan.registry import credentials

_RESULTS = 25


async def log_in(request: Request, engine: Engine) -> Answer:
    """POST /auth"""
    who = credentials.from_document(await request.json(dict))
    token = await engine.registries.log_in(who)
    return json_response({"Status": "Login Succeeded", "IdentityToken": token})


async def distribution(request: Request, engine: Engine) -> Answer:
    """GET /distribution/{name}/json"""
    who = credentials.decode(request.header("x-registry-auth"))
    found = await engine.registries.look(request.name, who)
    answer: dict[str, Any] = {
        "Descriptor": found.descriptor.document(),
        "Platforms": list(found.platforms),
    }
    return json_response(answer)


async def search(request: Request, engine: Engine) -> Answer:
    """GET /images/search?term=&limit=&filters="""
    query = request.query
    who = credentials.decode(request.header("x-registry-auth"))
    limit = query.integer("limit", _RESULTS) or _RESULTS
    return json_response(await engine.registries.search(query.text("term"), limit, query.filters(), who))


ROUTES = (
    Route("GET", "/images/search", search),
    Route("POST", "/auth", log_in),
    Route("GET", "/distribution/{name}/json", distribution),
)

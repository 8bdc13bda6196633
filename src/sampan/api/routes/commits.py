"""Commit: an image from a container."""

from __future__ import annotations

from sampan.api.decode import decode_json
from sampan.api.request import Request
from sampan.api.responses import Answer, json_response
from sampan.api.routing import Route
from sampan.engine.commits import CommitOptions
from sampan.engine.facade import Engine
from sampan.engine.model import ContainerConfig


async def commit(request: Request, engine: Engine) -> Answer:
    """POST /commit?container=&repo=&tag=&comment=&author=&pause=&changes="""
    query = request.query
    request.check_json()
    body = (await request.read()).strip()
    options = CommitOptions(
        repository=query.text("repo"),
        tag=query.text("tag"),
        comment=query.text("comment"),
        author=query.text("author"),
        pause=query.flag("pause", default=True) if query.text("pause") else True,
        changes=tuple(query.texts("changes")),
        config=None if body in (b"", b"null") else decode_json(body, ContainerConfig),
    )
    image = await engine.commits.commit(query.text("container"), options)
    return json_response({"Id": image.id}, status=201)


ROUTES = (Route("POST", "/commit", commit),)

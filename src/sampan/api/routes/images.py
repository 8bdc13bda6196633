"""Images."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

from sampan import errors
from sampan.api.render import image as render
from sampan.api.request import Request
from sampan.api.responses import (
    JSON,
    TAR,
    Answer,
    Response,
    Stream,
    json_response,
    progress,
)
from sampan.api.routing import Route
from sampan.engine.facade import Engine
from sampan.engine.images import ImportOptions
from sampan.engine.pulls import Wanted
from sampan.engine.pushes import Pushed
from sampan.errors import InvalidArgument
from sampan.images.indexes import Platform
from sampan.images.model import Progress
from sampan.registry import credentials
from sampan.spec import foreign
from sampan.spec import platform as platforms
from sampan.spec import reference as references

_MANIFESTS_IN_LISTS = (1, 47)
_MANIFESTS_OF_ONE = (1, 48)


def list_images(request: Request, engine: Engine) -> Answer:
    """GET /images/json?all=&filters=&shared-size=&manifests="""
    query = request.query
    found = engine.images.list(
        query.filters(),
        show_all=query.flag("all"),
        shared_size=query.flag("shared-size"),
        manifests=request.version >= _MANIFESTS_IN_LISTS and query.flag("manifests"),
    )
    return json_response([render.summary(one, request.version) for one in found])


async def inspect(request: Request, engine: Engine) -> Answer:
    """GET /images/{name}/json?platform=&manifests="""
    query = request.query
    manifests = request.version >= _MANIFESTS_OF_ONE and query.flag("manifests")
    found = await engine.images.inspect(request.name, _one(query.text("platform")), manifests=manifests)
    return json_response(render.details(found, request.version))


async def history(request: Request, engine: Engine) -> Answer:
    """GET /images/{name}/history?platform="""
    found = await engine.images.history(request.name, _one(request.query.text("platform")))
    return json_response([render.step(step) for step in found])


async def tag(request: Request, engine: Engine) -> Answer:
    """POST /images/{name}/tag?repo=&tag="""
    query = request.query
    await engine.images.tag(request.name, query.text("repo"), query.text("tag"))
    return Response(201)


async def remove(request: Request, engine: Engine) -> Answer:
    """DELETE /images/{name}?force=&noprune=&platforms="""
    query = request.query
    removed = await engine.images.remove(
        request.name,
        force=query.flag("force"),
        prune=not query.flag("noprune"),
        wanted=_several(query.texts("platforms")),
    )
    return json_response(removed)


async def prune(request: Request, engine: Engine) -> Answer:
    """POST /images/prune?filters="""
    pruned = await engine.images.prune(request.query.filters())
    return json_response({"ImagesDeleted": pruned.removed or None, "SpaceReclaimed": pruned.space_reclaimed})


async def load(request: Request, engine: Engine) -> Answer:
    """POST /images/load?quiet=&platform="""
    query = request.query
    wanted = _several(query.texts("platform"))
    messages = engine.images.load(request.body(), quiet=query.flag("quiet"), wanted=wanted)
    return await _progress_after_first(render.progress_message(message) async for message in messages)


async def create(request: Request, engine: Engine) -> Answer:
    """POST /images/create: import with ``fromSrc``, pull with ``fromImage``"""
    query = request.query
    if query.text("fromImage"):
        return await _pull(request, engine)
    source = query.text("fromSrc")
    if source != "-":
        if not source:
            raise InvalidArgument("either fromImage or fromSrc must be given")
        raise errors.NotImplemented(f"importing from a URL is not offered by this engine: {source}")
    options = ImportOptions(
        repository=query.text("repo"),
        tag=query.text("tag"),
        message=query.text("message"),
        changes=tuple(query.texts("changes")),
        platform=query.text("platform"),
        source=source,
    )
    return await _progress_after_first(_import(request, engine, options))


async def _import(request: Request, engine: Engine, options: ImportOptions) -> AsyncIterator[Any]:
    image = await engine.images.import_(request.body(), options)
    yield {"status": image.id}


async def _pull(request: Request, engine: Engine) -> Answer:
    """What the engine can make by itself is made; anything else comes from a registry."""
    query = request.query
    name, tag_or_digest = query.text("fromImage"), query.text("tag")
    if tag_or_digest:
        name += ("@" if ":" in tag_or_digest else ":") + tag_or_digest
    reference = references.parse(name)
    if await engine.images.supplies(reference.tagged()):
        return await _progress_after_first(_up_to_date(reference.tagged()))
    wanted = Wanted(
        reference=reference,
        credentials=credentials.decode(request.header("x-registry-auth")),
        platform=query.text("platform"),
        all_tags=not (reference.tag or reference.digest),
    )
    messages = engine.pulls.pull(wanted)
    return await _progress_after_first(render.progress_message(message) async for message in messages)


async def _up_to_date(reference: references.Reference) -> AsyncIterator[Any]:
    yield {"status": f"Pulling from {reference.path}", "id": reference.tag or reference.digest}
    yield {"status": f"Status: Image is up to date for {reference.familiar}"}


async def push(request: Request, engine: Engine) -> Answer:
    """POST /images/{name}/push?tag=&platform="""
    reference = references.parse(request.name)
    if tag := request.query.text("tag"):
        reference = references.with_tag(reference.name, tag)
    who = credentials.decode(request.header("x-registry-auth"))
    messages = engine.pushes.push(reference, who, _platform(request.query.text("platform")))
    return await _progress_after_first(_push_message(message) async for message in messages)


def _several(texts: Iterable[str]) -> tuple[Platform, ...]:
    """The platforms that JSON objects of the OCI name. InvalidArgument in Docker's words."""
    return tuple(platforms.parse(_platform(text)) for text in texts if text)


def _one(text: str) -> Platform | None:
    return next(iter(_several([text])), None)


def _platform(text: str) -> str:
    """The platform that a JSON object of the OCI names, as ``os/architecture/variant``; empty for none."""
    if not text:
        return ""
    try:
        given = foreign.decode(text)
        parts = [given.get(name) or "" for name in ("os", "architecture", "variant")]
        found = "/".join(parts).rstrip("/")
    except (ValueError, TypeError, AttributeError):
        raise InvalidArgument(f"failed to parse platform: {text[:100]}") from None
    platforms.parse(found)
    return found


def _push_message(message: Progress | Pushed) -> dict[str, Any]:
    if isinstance(message, Pushed):
        aux = {"Tag": message.tag, "Digest": message.digest, "Size": message.size}
        return {"progressDetail": {}, "aux": aux}
    return render.progress_message(message)


def save_one(request: Request, engine: Engine) -> Answer:
    """GET /images/{name}/get?platform="""
    return Stream(engine.images.save([request.name], _several(request.query.texts("platform"))), TAR)


def save(request: Request, engine: Engine) -> Answer:
    """GET /images/get?names=&platform="""
    names = request.query.texts("names")
    if not names:
        raise InvalidArgument("no images to save: the parameter names is missing")
    return Stream(engine.images.save(names, _several(request.query.texts("platform"))), TAR)


async def _progress_after_first(messages: AsyncIterator[Any]) -> Stream:
    """A stream of messages whose head waits for the first: a failure before it still has its status."""
    first = [message async for message in _take(messages, 1)]

    async def all_messages() -> AsyncIterator[Any]:
        for message in first:
            yield message
        async for message in messages:
            yield message

    return Stream(progress(all_messages()), JSON)


async def _take(messages: AsyncIterator[Any], count: int) -> AsyncIterator[Any]:
    while count:
        try:
            yield await anext(messages)
        except StopAsyncIteration:
            return
        count -= 1


ROUTES = (
    Route("GET", "/images/json", list_images),
    Route("POST", "/images/load", load),
    Route("POST", "/images/create", create),
    Route("POST", "/images/prune", prune),
    Route("GET", "/images/get", save),
    Route("GET", "/images/{name}/get", save_one),
    Route("GET", "/images/{name}/json", inspect),
    Route("GET", "/images/{name}/history", history),
    Route("POST", "/images/{name}/tag", tag),
    Route("POST", "/images/{name}/push", push),
    Route("DELETE", "/images/{name}", remove),
)

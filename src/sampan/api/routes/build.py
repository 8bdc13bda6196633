"""Building images: the classic API, as DOCKER_BUILDKIT=0, docker-py and compose speak it."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

import msgspec

from sampan import errors
from sampan.api.buildlink import Gone, Link
from sampan.api.errors import message_of, with_prefix
from sampan.api.params import Query
from sampan.api.request import Request
from sampan.api.responses import HIJACKED, JSON, Answer, Rendered, Stream, json_line, json_response
from sampan.api.routing import Route
from sampan.engine import provenance
from sampan.engine.buildnews import News
from sampan.engine.builds import BuildOptions, Built, Message, Understood
from sampan.engine.buildsteps import StepFailed
from sampan.engine.facade import Engine
from sampan.engine.model import HostConfig, Ulimit
from sampan.errors import Failure, InvalidArgument
from sampan.registry import credentials
from sampan.spec import foreign
from sampan.spec import reference as references

T = TypeVar("T")


async def build(request: Request, engine: Engine) -> Answer:
    """POST /build?t=&dockerfile=&buildargs=&…"""
    options = _options(request)
    messages = engine.builds.build(request.body(), options)
    try:
        # Once the Dockerfile is understood. Until then a failure is an answer with a status of its own.
        await anext(messages)
    except InvalidArgument as failure:
        # It shows lines of the Dockerfile, which are to stay lines.
        return json_response({"message": str(failure)}, status=400)
    except BaseException:
        await messages.aclose()
        raise
    return Stream(Rendered(messages, _line, _last_words), JSON)


async def session(request: Request, engine: Engine) -> Answer:
    """POST /build/session?t=&target=&…: a build whose client answers while it goes on; see ``wire.sessions``.

    The parameters are those of POST /build; what there is the body, the client is asked for.
    """
    options = _options(request)
    link = await Link.over(*request.hijacker(multiplexed=False)().detach())
    telling = asyncio.create_task(_converse(link, engine, options, request.number))
    losing = asyncio.create_task(link.lost.wait())
    try:
        await asyncio.wait((telling, losing), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (telling, losing):
            task.cancel()
        await asyncio.gather(telling, losing, return_exceptions=True)
        await link.close()
    return HIJACKED


async def _converse(link: Link, engine: Engine, options: BuildOptions, number: int) -> None:
    try:
        await link.greeted()
        messages = engine.builds.build(link.archive(), options, link)
        try:
            async for message in messages:
                if not isinstance(message, Understood):
                    await link.tell(_document(message))
        finally:
            await messages.aclose()
    except Gone:
        return
    except Failure as failure:
        await link.tell(_failure(failure))
    except Exception as error:
        await link.tell(_failure(Failure(message_of(error, number))))
    link.finish()


def _line(message: Message) -> bytes:
    return json_line(_document(message))


def _document(message: Message) -> dict[str, Any]:
    if isinstance(message, Built):
        return {"aux": {"ID": message.image_id}}
    if isinstance(message, News):
        return message.document
    return {"stream": message}


def _last_words(failure: Failure) -> bytes:
    return json_line(_failure(failure))


def _failure(failure: Failure) -> dict[str, Any]:
    detail: dict[str, Any] = {"message": str(failure)}
    if isinstance(failure, StepFailed):
        detail["code"] = failure.code
    return {"errorDetail": detail, "error": str(failure)}


def _options(request: Request) -> BuildOptions:
    query = request.query
    if query.text("version") == "2":
        raise errors.NotImplemented(
            "building with BuildKit is not offered by this engine: set DOCKER_BUILDKIT=0, or use sampan"
        )
    return BuildOptions(
        dockerfile=query.text("dockerfile") or "Dockerfile",
        remote=query.text("remote"),
        names=tuple(references.parse(name).tagged() for name in query.texts("t") if name),
        target=query.text("target"),
        arguments={name: value for name, value in _texts(query, "buildargs").items() if value is not None},
        labels={name: value or "" for name, value in _texts(query, "labels").items()},
        platform=query.text("platform"),
        cache_from=tuple(_list(query, "cachefrom", str)),
        cache_inline=query.flag("cacheinline"),
        cache_told=query.flag("cachetold"),
        provenance=_provenance(query.text("provenance")),
        check=query.flag("check"),
        squash=query.flag("squash"),
        no_cache=query.flag("nocache"),
        pull=query.flag("pull"),
        quiet=query.flag("q"),
        allowed=frozenset(_allowed(query)),
        host=_host(query),
        credentials={
            credentials.domain_of(name): credentials.from_document(who)
            for name, who in credentials.decode_object(request.header("x-registry-config")).items()
        },
    )


def _provenance(text: str) -> str:
    if text not in provenance.MODES:
        raise InvalidArgument(f"invalid provenance mode: {text}; use min or max")
    return text


def _allowed(query: Query) -> list[str]:
    found = query.texts("allow")
    for name in found:
        if name not in ("security.insecure", "network.host"):
            raise InvalidArgument(f"invalid entitlement: {name}")
    return found


_HOST_IDS = "userns=host"


def _host(query: Query) -> HostConfig:
    security = _list(query, "securityopt", str)
    return HostConfig(
        network_mode=query.text("networkmode") or "default",
        extra_hosts=tuple(query.texts("extrahosts")) or None,
        memory=query.integer("memory", 0) or 0,
        memory_swap=query.integer("memswap", 0) or 0,
        cpu_shares=query.integer("cpushares", 0) or 0,
        cpu_period=query.integer("cpuperiod", 0) or 0,
        cpu_quota=query.integer("cpuquota", 0) or 0,
        cpuset_cpus=query.text("cpusetcpus"),
        cpuset_mems=query.text("cpusetmems"),
        shm_size=query.integer("shmsize", 0) or 0,
        cgroup_parent=query.text("cgroupparent"),
        # Not among Docker's: a client of its own API has no other way to ask for it.
        userns_mode="host" if _HOST_IDS in security else "",
        security_opt=tuple(text for text in security if text != _HOST_IDS) or None,
        ulimits=tuple(_list(query, "ulimits", Ulimit)) or None,
    )


def _texts(query: Query, name: str) -> dict[str, str | None]:
    text = query.text(name)
    if not text:
        return {}
    try:
        found = foreign.decode(text)
    except ValueError as error:
        raise InvalidArgument(f"invalid {name}: {error}") from None
    valid = isinstance(found, dict) and all(isinstance(one, str | None) for one in found.values())
    if not valid:
        raise InvalidArgument(f"invalid {name}: not an object of texts")
    return dict(found)


def _list(query: Query, name: str, kind: type[T]) -> list[T]:
    text = query.text(name)
    if not text:
        return []
    try:
        return msgspec.json.decode(text, type=list[kind]) or []  # type: ignore[valid-type]
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"invalid {name}: {error}") from None


async def prune(request: Request, engine: Engine) -> Answer:
    """POST /build/prune"""
    query = request.query
    keep = max(query.integer(name, 0) or 0 for name in ("keep-storage", "reserved-space"))
    try:
        keys, freed = await engine.build_usage.prune(query.filters(), everything=query.flag("all"), keep=keep)
    except InvalidArgument as error:
        raise with_prefix("failed to prune build cache: ", error) from None
    return json_response({"CachesDeleted": keys or None, "SpaceReclaimed": freed})


async def cache_export(request: Request, engine: Engine) -> Answer:
    """POST /build/cache/export, with the keys of steps: an archived OCI layout of what they came to."""
    keys = [str(key) for key in await request.json(list)]
    return Stream(engine.builds.transfer.export(keys), "application/x-tar")


async def cache_import(request: Request, engine: Engine) -> Answer:
    """POST /build/cache/import, with such an archive."""
    return json_response({"Records": await engine.builds.transfer.take(request.body())})


async def cache_push(request: Request, engine: Engine) -> Answer:
    """POST /build/cache/push?name=, with the keys of steps: put under that name of a registry."""
    reference = references.parse(request.query.text("name")).tagged()
    who = credentials.decode(request.header("x-registry-auth"))
    keys = [str(key) for key in await request.json(list)]
    return json_response({"Digest": await engine.builds.registry_caches.push(keys, reference, who)})


async def mounts(_request: Request, engine: Engine) -> Answer:
    """GET /build/mounts: the cache mounts."""
    found = await engine.cache_mounts.all()
    return json_response(
        [
            {
                "Id": mount.identity,
                "Name": mount.name,
                "Size": mount.size,
                "LastUsed": mount.used_ns // 1_000_000_000,
                "InUse": mount.in_use,
            }
            for mount in found
        ]
    )


async def mount_export(request: Request, engine: Engine) -> Answer:
    """GET /build/mounts/export?id="""
    return Stream(await engine.cache_mounts.export(request.query.text("id")), "application/x-tar")


async def mount_import(request: Request, engine: Engine) -> Answer:
    """POST /build/mounts/import?id=, with an archive"""
    await engine.cache_mounts.load(request.query.text("id"), request.body())
    return json_response({}, status=201)


async def attest(request: Request, engine: Engine) -> Answer:
    """POST /build/attest?name=, with an in-toto statement: put beside an image in its registry."""
    reference = references.parse(request.query.text("name")).tagged()
    who = credentials.decode(request.header("x-registry-auth"))
    digest = await engine.referrers.push(reference, who, await request.json(dict))
    return json_response({"Digest": digest})


ROUTES = (
    Route("POST", "/build", build),
    Route("POST", "/build/session", session),
    Route("POST", "/build/prune", prune),
    Route("POST", "/build/cache/export", cache_export),
    Route("POST", "/build/cache/import", cache_import),
    Route("POST", "/build/cache/push", cache_push),
    Route("GET", "/build/mounts", mounts),
    Route("GET", "/build/mounts/export", mount_export),
    Route("POST", "/build/mounts/import", mount_import),
    Route("POST", "/build/attest", attest),
)
